import tseslint from 'typescript-eslint';

// Imports point one way (docs/development/architecture.md): a folder may import those of lower rows, never its own
// row's neighbours. protocol/ is free to all and imports nothing outside itself.
const rows = [
  ['bin', 'src/manual'],
  ['src/main'],
  ['src/daemon'],
  ['src/simulate'],
  ['src/control', 'src/policy', 'src/ops'],
  ['src/vhost-user', 'src/balloon', 'src/host'],
  ['src/virtqueue'],
  ['src/memory'],
  ['src/os'],
  ['src/native'],
];

function forbid(folders, message) {
  if (folders.length === 0) return {};
  const names = folders.map((folder) => folder.replace('src/', '')).join('|');
  return {
    'no-restricted-imports': [
      'error',
      { patterns: [{ regex: `^\\.{1,2}/(?!.*protocol/)(.*/)?(${names})(/|\\.js$)`, message }] },
    ],
  };
}

const direction = rows.flatMap((row, index) =>
  row.map((folder) => {
    const above = rows.slice(0, index).flat();
    const neighbours = row.filter((other) => other !== folder);
    // Only src/os loads the addon; the type of its exports lives in src/os as well.
    const native = folder === 'src/os' ? [] : ['src/native'];
    return {
      files: folder === 'src/main' ? ['src/main.ts'] : [`${folder}/**/*.ts`],
      rules: forbid(
        [...above, ...neighbours, ...native],
        `imports point downwards; ${folder} may not import this`,
      ),
    };
  }),
);

export default tseslint.config(
  { ignores: ['out/**', '.tap/**', 'src/native/build/**', 'node_modules/**'] },
  ...tseslint.configs.strictTypeChecked,
  {
    languageOptions: {
      parserOptions: {
        projectService: { allowDefaultProject: ['eslint.config.js', 'scripts/*.js'] },
        tsconfigRootDir: import.meta.dirname,
      },
    },
    rules: {
      eqeqeq: 'error',
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true },
      ],
      '@typescript-eslint/no-confusing-void-expression': 'off',
      '@typescript-eslint/prefer-literal-enum-member': 'off',
      '@typescript-eslint/no-non-null-assertion': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
    },
  },
  { files: ['**/*.js'], ...tseslint.configs.disableTypeChecked },
  ...direction,
  {
    files: ['protocol/**/*.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            { regex: '/(src|bin|test|bench|demo)/', message: 'protocol/ imports nothing outside itself' },
          ],
        },
      ],
    },
  },
  {
    files: ['test/**/*.ts', 'bench/**/*.ts', 'demo/**/*.ts'],
    rules: { '@typescript-eslint/no-floating-promises': ['error', { ignoreVoid: true }] },
  },
);
