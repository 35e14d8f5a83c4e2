/* SPDX-License-Identifier: GPL-2.0 */
/* The page cache balloon, as a part of a device. */
#ifndef PAGE_CACHE_H
#define PAGE_CACHE_H

#include <linux/err.h>
#include <linux/jiffies.h>
#include <linux/seq_file.h>

#include "wire.h"

/* What a balloon does, and since when, in words for whoever looks into the guest. */
struct standing {
	const char *now;
	unsigned long since;
	/* Since when the host has a buffer; 0: it has none. */
	unsigned long sent;
};

static inline void stands(struct standing *standing, const char *now)
{
	if (READ_ONCE(standing->now) == now)
		return;
	WRITE_ONCE(standing->since, jiffies);
	WRITE_ONCE(standing->now, now);
}

/* Sends entries and waits for the host; returns an error of the queue. */
static inline int send_standing(struct standing *standing, struct virtqueue *vq,
				struct wait_queue_head *acked, void *buffer, unsigned int entries,
				bool ranges)
{
	int err;

	WRITE_ONCE(standing->sent, jiffies | 1);
	err = send_entries(vq, acked, buffer, entries, ranges);
	WRITE_ONCE(standing->sent, 0);
	return err;
}

static inline void show_pages(struct seq_file *file, const char *name, unsigned long pages)
{
	seq_printf(file, "%s: %lu kB\n", name, pages << (PAGE_SHIFT - 10));
}

/* `sent` is in jiffies; 0: the host has no buffer. */
static inline void show_wait(struct seq_file *file, const char *name, unsigned long sent)
{
	if (sent)
		seq_printf(file, "%s waits for the host: %u ms\n", name,
			   jiffies_to_msecs(max_t(long, jiffies - sent, 0)));
}

static inline void show_standing(struct seq_file *file, const char *name, struct standing *standing)
{
	seq_printf(file, "%s: %s, for %u ms\n", name, READ_ONCE(standing->now),
		   jiffies_to_msecs(jiffies - READ_ONCE(standing->since)));
	show_wait(file, name, READ_ONCE(standing->sent));
}

struct cache_balloon;

int cache_balloon_init(void);
void cache_balloon_exit(void);

struct cache_balloon *cache_balloon_create(struct virtio_device *vdev, unsigned int config_at);
void cache_balloon_start(struct cache_balloon *cb, struct virtqueue *cacheq,
			 struct virtqueue *reclaimq);
void cache_balloon_changed(struct cache_balloon *cb);
void cache_balloon_halt(struct cache_balloon *cb);
void cache_balloon_destroy(struct cache_balloon *cb);
void cache_balloon_show(struct seq_file *file, struct cache_balloon *cb);
/* The callback of its queues. */
void cache_balloon_acked(struct virtqueue *vq);

#endif
