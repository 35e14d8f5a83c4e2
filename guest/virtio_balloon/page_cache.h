/* SPDX-License-Identifier: GPL-2.0 */
/* The page cache balloon, as a part of a device. */
#ifndef PAGE_CACHE_H
#define PAGE_CACHE_H

#include <linux/err.h>

#include "wire.h"

struct cache_balloon;

int cache_balloon_init(void);
void cache_balloon_exit(void);

struct cache_balloon *cache_balloon_create(struct virtio_device *vdev, unsigned int config_at);
void cache_balloon_start(struct cache_balloon *cb, struct virtqueue *cacheq, struct virtqueue *reclaimq);
void cache_balloon_changed(struct cache_balloon *cb);
void cache_balloon_halt(struct cache_balloon *cb);
void cache_balloon_destroy(struct cache_balloon *cb);
/* The callback of its queues. */
void cache_balloon_acked(struct virtqueue *vq);

#endif
