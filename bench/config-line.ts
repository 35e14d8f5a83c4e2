import { encodeMessage, FLAG_NEED_REPLY, HEADER_BYTES } from '../protocol/vhost-user/header.js';
import { encodeConfig, encodeU64 } from '../protocol/vhost-user/payloads.js';
import { FrontendRequest, ProtocolFeature } from '../protocol/vhost-user/requests.js';
import { featureMask } from '../protocol/virtio/features.js';
import { closeFd } from '../src/os/fd.js';
import { connectUnix, receive, send } from '../src/os/socket.js';

const { VHOST_USER_PROTOCOL_F_CONFIG, VHOST_USER_PROTOCOL_F_REPLY_ACK } = ProtocolFeature;
const CONFIG_SPACE = encodeConfig(0, 0, new Uint8Array(16));
const GET_CONFIG = encodeMessage(FrontendRequest.GET_CONFIG, 0, CONFIG_SPACE);
const SET_CONFIG = encodeMessage(FrontendRequest.SET_CONFIG, FLAG_NEED_REPLY, CONFIG_SPACE);
const ACK_BYTES = HEADER_BYTES + 8;

/** A connection on which nothing but the config space is read and written, looking for replies without a pause. */
export class ConfigLine {
  readonly #fd: number;
  readonly #into = new Uint8Array(GET_CONFIG.length);
  readonly #fds: number[] = [];

  constructor(socketPath: string) {
    this.#fd = connectUnix(socketPath);
    const features = featureMask(VHOST_USER_PROTOCOL_F_CONFIG, VHOST_USER_PROTOCOL_F_REPLY_ACK);
    this.#ask(encodeMessage(FrontendRequest.SET_PROTOCOL_FEATURES, 0, encodeU64(features)), 0);
  }

  /** GET_CONFIG of all 16 bytes. */
  get(): void {
    this.#ask(GET_CONFIG, GET_CONFIG.length);
  }

  /** SET_CONFIG of all 16 bytes, acknowledged. */
  set(): void {
    this.#ask(SET_CONFIG, ACK_BYTES);
  }

  close(): void {
    closeFd(this.#fd);
  }

  #ask(message: Uint8Array, replyBytes: number): void {
    send(this.#fd, message, 0, message.length, []);
    for (let got = 0; got < replyBytes;) {
      got += Math.max(0, receive(this.#fd, this.#into, got, replyBytes - got, this.#fds));
    }
  }
}
