/* SPDX-License-Identifier: GPL-2.0 */
/* The wire format, as docs/cache-balloon.md has it. */
#ifndef WIRE_H
#define WIRE_H

#include <linux/mm.h>
#include <linux/scatterlist.h>
#include <linux/types.h>
#include <linux/virtio.h>
#include <linux/virtio_types.h>
#include <linux/wait.h>

#define VIRTIO_ID_CACHE_BALLOON 13

/*
 * Entries are le64: the address of a block, and its order in the low bits. The
 * traditional balloon has a cacheq.
 */
#define VIRTIO_CACHE_BALLOON_F_RANGES 16
/* The driver tells what reclaim took back. */
#define VIRTIO_CACHE_BALLOON_F_TELL_RECLAIM 17
/* The host may ask for all pages. */
#define VIRTIO_CACHE_BALLOON_F_LOCK 18

/* Pages are of 4 KiB, whatever the kernel's are. */
#define WIRE_SHIFT 12
/* The largest order of a block, in such pages. */
#define MAX_WIRE_ORDER 18
#define BUFFER_ENTRIES 256
/* Of a page of the kernel, without RANGES. */
#define ENTRIES_PER_PAGE (PAGE_SIZE >> WIRE_SHIFT)

/* On the traditional balloon it follows the fields of that. */
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

static inline u32 to_wire(unsigned long pages)
{
	return pages << (PAGE_SHIFT - WIRE_SHIFT);
}

/*
 * Writes what names a block of pages behind the first `at` entries; returns how many
 * there are then.
 */
static inline unsigned int put_entry(bool ranges, void *buffer, unsigned int at, unsigned long pfn,
				     unsigned int order)
{
	unsigned int n;

	if (ranges) {
		order += PAGE_SHIFT - WIRE_SHIFT;
		((__le64 *)buffer)[at] = cpu_to_le64(((u64)pfn << PAGE_SHIFT) | order);
		return at + 1;
	}
	for (n = 0; n < ENTRIES_PER_PAGE << order; n++)
		((__le32 *)buffer)[at + n] = cpu_to_le32(pfn * ENTRIES_PER_PAGE + n);
	return at + n;
}

/* Waits for the host with what was put into a queue; it is idle time, however long that takes. */
static inline int await_host(struct virtqueue *vq, struct wait_queue_head *acked)
{
	unsigned int unused;

	virtqueue_kick(vq);
	wait_event_idle(*acked, virtqueue_get_buf(vq, &unused) || virtqueue_is_broken(vq));
	return virtqueue_is_broken(vq) ? -EIO : 0;
}

static inline int send_entries(struct virtqueue *vq, struct wait_queue_head *acked, void *buffer,
			       unsigned int entries, bool ranges)
{
	struct scatterlist sg;
	int err;

	sg_init_one(&sg, buffer, entries * (ranges ? 8 : 4));
	err = virtqueue_add_outbuf(vq, &sg, 1, buffer, GFP_KERNEL);
	return err ? err : await_host(vq, acked);
}

#endif
