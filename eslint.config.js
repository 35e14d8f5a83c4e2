import tseslint from 'typescript-eslint';

// Imports point one way (docs/development/architecture.md): a folder may import those of lower rows, never its own
// row's neighbours. protocol/ is free to all and imports nothing outside itself.
const rows = [
  ['bin', 'src/manual', 'src/page'],
  ['src/main'],
  ['src/daemon'],
  ['src/governor', 'src/simulate'],
  ['src/vm'],
  ['src/control', 'src/policy', 'src/ops'],
  ['src/vhost-user', 'src/qmp', 'src/libvirt', 'src/balloon', 'src/host'],
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

// One place each for what a process says, for files of the kernel and for the time: whoever writes past the first can be ended or held up by a
// log, and whoever takes wall time for a duration is wrong by hours when somebody sets it.
const output = {
  message:
    'a log line goes through LineWriter (src/os/line-writer.ts), what a command prints through src/os/print.ts',
};
const clock = {
  message: 'durations are measured by Monotonic, wall time is for display: both are in src/os/clock.ts',
};
const kernelFile = {
  message:
    'a file of /proc or /sys is read by readKernelFile (src/os/kernel-file.ts), which leaves no 64 KiB of garbage',
};
const onePlace = {
  files: ['src/**/*.ts', 'bin/**/*.ts', 'protocol/**/*.ts'],
  rules: {
    'no-console': 'error',
    'no-restricted-properties': [
      'error',
      { object: 'process', property: 'stdout', ...output },
      { object: 'process', property: 'stderr', ...output },
      { object: 'process', property: 'emitWarning', ...output },
      { object: 'pino', property: 'destination', ...output },
      { object: 'pino', property: 'transport', ...output },
      { object: 'pino', property: 'final', ...output },
      { object: 'Date', property: 'now', ...clock },
    ],
    'no-restricted-syntax': [
      'error',
      { selector: 'ImportDeclaration[source.value=/^(node:)?(process|console)$/]', ...output },
      {
        selector:
          'CallExpression[callee.name=/^(write|writev|writeFile|appendFile)(Sync)?$/][arguments.0.value=/^[12]$/]',
        ...output,
      },
      { selector: 'NewExpression[callee.name="Date"][arguments.length=0]', ...clock },
      { selector: 'CallExpression[callee.name="Date"]', ...clock },
      { selector: 'CallExpression[callee.name="readFileSync"][arguments.1.value="latin1"]', ...kernelFile },
    ],
  },
};

// Whatever an operator reads as it is has a next step, which the type of such errors asks for. A UsageError gets the help.
const nextStep = {
  files: ['bin', 'src/control', 'src/daemon', 'src/governor', 'src/ops', 'src/simulate', 'src/vm'].map(
    (folder) => `${folder}/**/*.ts`,
  ),
  rules: {
    'no-restricted-syntax': [
      'error',
      ...onePlace.rules['no-restricted-syntax'].slice(1),
      {
        selector: 'ClassDeclaration[superClass.name="Error"][id.name!="UsageError"]',
        message: 'an error that refuses something is a RefusingError (protocol/control/refusal.ts)',
      },
    ],
  },
};

// One noun a file. test/docs/sources.test.ts counts the lines of the C files.
const short = {
  files: ['src/**/*.ts', 'bin/**/*.ts', 'protocol/**/*.ts'],
  rules: { 'max-lines': ['error', 450], 'max-lines-per-function': ['error', 80] },
};

export default tseslint.config(
  { ignores: ['out/**', '.tap/**', 'src/native/build/**', 'node_modules/**'] },
  ...tseslint.configs.strictTypeChecked,
  {
    // An exception is made here or not at all.
    linterOptions: { noInlineConfig: true },
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
  onePlace,
  nextStep,
  short,
  { files: ['src/os/print.ts'], rules: { 'no-restricted-properties': 'off' } },
  {
    files: ['src/os/clock.ts'],
    rules: { 'no-restricted-properties': 'off', 'no-restricted-syntax': 'off' },
  },
  {
    files: ['protocol/**/*.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            { regex: '/(src|bin|test|bench)/', message: 'protocol/ imports nothing outside itself' },
          ],
        },
      ],
    },
  },
  {
    // It runs in a browser.
    files: ['src/page/**/*.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            { regex: '^\\.\\./(?!\\.\\./protocol/)', message: 'src/page imports protocol/ and nothing else' },
          ],
        },
      ],
    },
  },
  {
    // tap gives a file 30 s, unless the program that runs the file says more: a check that is run by name takes longer.
    files: ['test/**/*.check.ts'],
    rules: {
      'no-restricted-syntax': [
        'error',
        {
          selector:
            "Program:not(:has(ExpressionStatement > CallExpression[callee.property.name='setTimeout']))",
          message: 'a check has no time limit of its own: say t.setTimeout(0) below the imports',
        },
      ],
    },
  },
  {
    files: ['test/**/*.ts', 'bench/**/*.ts'],
    rules: { '@typescript-eslint/no-floating-promises': ['error', { ignoreVoid: true }] },
  },
);
