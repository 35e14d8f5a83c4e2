/**
 * A page of the documentation as these tests read it: its fenced blocks with the comment that says how each is run, its
 * links and anchors, and its text. Comments are `<!-- run: PLACE -->`, `<!-- run: PLACE, exact -->`,
 * `<!-- not run: REASON -->` and `<!-- checked: TEST FILE -->`, right above a block, or right below the title for all blocks
 * of the page that have commands and no comment of their own.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Heading, Nodes, Root } from 'mdast';
import { fromMarkdown } from 'mdast-util-from-markdown';

export const ROOT = join(import.meta.dirname, '../../..');

/**
 * `host` is a fresh Debian 13 that runs systemd, `repository` the checkout on it, and `virtual host` a Debian 13 in a VM, for
 * what needs cgroups of its own.
 */
export const PLACES = ['host', 'repository', 'virtual host'] as const;
export type Place = (typeof PLACES)[number];

export type Mark =
  | { readonly kind: 'run'; readonly place: Place; readonly exact: boolean }
  | { readonly kind: 'not run'; readonly reason: string }
  | { readonly kind: 'checked'; readonly by: string };

export interface Block {
  /** Relative to the repository, as `docs/limits.md`. */
  readonly page: string;
  /** Of the opening fence. */
  readonly line: number;
  /** The empty string where the fence names none. */
  readonly language: string;
  readonly text: string;
  readonly mark: Mark | null;
}

export interface Words {
  readonly line: number;
  readonly text: string;
}

export interface Page {
  readonly path: string;
  readonly source: string;
  readonly blocks: readonly Block[];
  /** Code spans. */
  readonly spans: readonly Words[];
  /** Plain text between markup. */
  readonly texts: readonly Words[];
  /** Targets of links and pictures. */
  readonly links: readonly Words[];
  /** As GitHub makes them of headings. */
  readonly anchors: ReadonlySet<string>;
}

/** All pages: README.md and CONTRIBUTING.md first, then those below docs/ by name. */
export function allPages(): Page[] {
  const below = readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' });
  const docs = below.filter((path) => path.endsWith('.md')).map((path) => join('docs', path));
  return ['README.md', 'CONTRIBUTING.md', ...docs.sort()].map(readPage);
}

/** Reads a page whose path is relative to the repository. Throws an Error that names a comment of a form not known. */
export function readPage(path: string): Page {
  const source = readFileSync(join(ROOT, path), 'utf8');
  const tree = fromMarkdown(source);
  const reader = new Reader(path, ofPage(tree, path));
  reader.read(tree);
  const { blocks, spans, texts, links, anchors } = reader;
  return { path, source, blocks, spans, texts, links, anchors };
}

class Reader {
  readonly blocks: Block[] = [];
  readonly spans: Words[] = [];
  readonly texts: Words[] = [];
  readonly links: Words[] = [];
  readonly anchors = new Set<string>();
  readonly #path: string;
  readonly #default: Mark | null;

  constructor(path: string, mark: Mark | null) {
    this.#path = path;
    this.#default = mark;
  }

  read(node: Nodes, before?: Nodes): void {
    const line = node.position?.start.line ?? 0;
    if (node.type === 'code') {
      const own = before?.type === 'html' ? readMark(before.value, `${this.#path}:${line}`) : null;
      const language = node.lang ?? '';
      const mark = own ?? (hasCommands(language) ? this.#default : null);
      this.blocks.push({ page: this.#path, line, language, text: node.value, mark });
    } else if (node.type === 'inlineCode') {
      // Tables are read as text here, where a bar that is meant is escaped.
      this.spans.push({ line, text: node.value.replaceAll('\\|', '|').replaceAll('\n', ' ') });
    } else if (node.type === 'text') this.texts.push({ line, text: node.value });
    else if (node.type === 'link' || node.type === 'image') this.links.push({ line, text: node.url });
    else if (node.type === 'heading') this.anchors.add(anchor(node));
    if (!('children' in node)) return;
    for (const [index, child] of node.children.entries()) this.read(child, node.children[index - 1]);
  }
}

/** True of the languages whose blocks are typed into a shell. */
export function hasCommands(language: string): boolean {
  return language === 'sh' || language === 'console';
}

/** The comment between the title and all else. */
function ofPage(tree: Root, path: string): Mark | null {
  const [title, comment] = tree.children;
  return title?.type === 'heading' && comment?.type === 'html' ? readMark(comment.value, path) : null;
}

function readMark(html: string, where: string): Mark | null {
  const [, comment] = /^<!--\s*([^]*?)\s*-->$/.exec(html) ?? [];
  if (comment === undefined) return null;
  const [, kind, rest = ''] = /^(run|not run|checked): ([^]+)$/.exec(comment) ?? [];
  if (kind === 'not run') return { kind, reason: rest.replaceAll(/\s+/g, ' ') };
  if (kind === 'checked') return { kind, by: rest };
  const [place, ...more] = rest.split(', ');
  const known = PLACES.find((one) => one === place);
  if (kind === undefined || known === undefined || more.some((word) => word !== 'exact'))
    throw new Error(`${where}: <!-- ${comment} --> is no comment that test/docs/page.ts knows`);
  return { kind: 'run', place: known, exact: more.length > 0 };
}

function anchor(heading: Heading): string {
  return words(heading)
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
    .replaceAll(' ', '-');
}

function words(node: Nodes): string {
  if ('value' in node) return node.value;
  return 'children' in node ? node.children.map(words).join('') : '';
}
