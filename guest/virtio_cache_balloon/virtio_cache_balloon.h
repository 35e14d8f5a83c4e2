/* SPDX-License-Identifier: GPL-2.0 */
/* The wire format, as docs/cache-balloon.md has it. */
#ifndef VIRTIO_CACHE_BALLOON_H
#define VIRTIO_CACHE_BALLOON_H

#include <linux/types.h>
#include <linux/virtio_types.h>

#define VIRTIO_ID_CACHE_BALLOON 13

/* Entries are le64: the address of a block, and its order in the low bits. */
#define VIRTIO_CACHE_BALLOON_F_RANGES 16
/* The driver tells what reclaim took back. */
#define VIRTIO_CACHE_BALLOON_F_TELL_RECLAIM 17
/* The host may ask for all pages. */
#define VIRTIO_CACHE_BALLOON_F_LOCK 18

/* Pages are of 4 KiB, whatever the kernel's are. */
#define VIRTIO_CACHE_BALLOON_PFN_SHIFT 12
/* The largest order of a block, in such pages. */
#define VIRTIO_CACHE_BALLOON_MAX_ORDER 18
#define VIRTIO_CACHE_BALLOON_ENTRIES 256

struct virtio_cache_balloon_config {
	/* Written by the host: the most pages to hold. */
	__le32 num_pages;
	__le32 actual;
	__le32 pages_total;
	__le32 pages_free;
	/* Set by the host, cleared by the driver. */
	__le32 need_stats;
	/* Written by the host. */
	__le32 lock;
	__le32 locked;
};

#endif
