import { ProtocolFeature } from '../../protocol/vhost-user/requests.js';
import { featureMask } from '../../protocol/virtio/features.js';

/**
 * What GET_PROTOCOL_FEATURES answers. INFLIGHT_SHMFD is not among it: chains are given back in order and a held
 * statistics buffer is seen again at used->idx, so there is nothing in flight that a restart could lose.
 */
export const PROTOCOL_FEATURES = featureMask(
  ProtocolFeature.VHOST_USER_PROTOCOL_F_MQ,
  ProtocolFeature.VHOST_USER_PROTOCOL_F_LOG_SHMFD,
  ProtocolFeature.VHOST_USER_PROTOCOL_F_REPLY_ACK,
  ProtocolFeature.VHOST_USER_PROTOCOL_F_BACKEND_REQ,
  ProtocolFeature.VHOST_USER_PROTOCOL_F_CONFIG,
  ProtocolFeature.VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD,
  ProtocolFeature.VHOST_USER_PROTOCOL_F_RESET_DEVICE,
  ProtocolFeature.VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
  ProtocolFeature.VHOST_USER_PROTOCOL_F_STATUS,
  ProtocolFeature.VHOST_USER_PROTOCOL_F_DEVICE_STATE,
);
