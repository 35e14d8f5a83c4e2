/** Answers to what never becomes a request with a response object of its own. */
import { refusal } from '../../protocol/control/refusal.js';
import { STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { Problem } from './problem.js';

export const PROBLEM_TYPE = 'application/problem+json';

/** Answers on the socket itself, and closes it. */
export function refuseRaw(socket: Duplex, problem: Problem): void {
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  const body = `${JSON.stringify(problem.document())}\n`;
  const own = Object.entries(problem.headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(
    `HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status] ?? ''}\r\n` +
      `content-type: ${PROBLEM_TYPE}\r\nconnection: close\r\n${own.join('')}` +
      `content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}

/** What the parser of node:http stumbled on, by its error's code. */
export function unreadable(code: string | undefined): Problem {
  switch (code) {
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return new Problem(408, refusal('the request did not arrive in time', 'send it in one go'));
    case 'HPE_HEADER_OVERFLOW':
      return new Problem(
        431,
        refusal('the request line and headers are too large', 'send less than 16 KiB of them'),
      );
    case 'HPE_CHUNK_EXTENSIONS_OVERFLOW':
      return new Problem(413, refusal('the chunk extensions are too large', 'send none'));
    default:
      return new Problem(
        400,
        refusal('this is not an HTTP/1.1 request', 'use curl, or balloonctl on the control socket'),
      );
  }
}
