// SPDX-License-Identifier: GPL-2.0
/*
 * A memory balloon in the page cache, a part of a balloon device.
 *
 * The balloon is the page cache of one inode that nobody can open. A folio that
 * was added is told to the host, which takes its memory away before it answers;
 * until then the driver holds a reference, so that neither reclaim nor migration
 * gets at the folio. Afterwards it is an ordinary clean page of the page cache:
 * reclaim takes it when the guest needs memory, and the first access to the page
 * makes the host give memory again. What a folio contains is nobody's business.
 *
 * File pages that the guest read and does not read again are worth less than the
 * balloon: while there are such, kswapd is refused folios of the balloon, and the
 * balloon grows at their cost. That the guest reads again what it lost shows that
 * they were worth more, and the balloon gives way for a while: for longer each time
 * when that comes soon after it grew again, and for less time when the guest is idle.
 * Then it begins anew with little at a time.
 */
#include <linux/bitmap.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/memory.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/pagemap.h>
#include <linux/pseudo_fs.h>
#include <linux/sizes.h>
#include <linux/swap.h>
#include <linux/tick.h>
#include <linux/version.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "page_cache.h"

#define CACHE_BALLOON_MAGIC 0x62616c63
/* Folios do not cross the borders of such chunks of the file. */
#define MAX_ORDER_USED 9
#define CHUNK_PAGES BIT(MAX_ORDER_USED)
/*
 * The allocator turns to a zone below that part of all memory when the others are
 * at their low watermarks.
 */
#define SMALL_ZONE 32
/* A buffer may always have that many pages. */
#define MIN_IN_FLIGHT 64UL
/* Pages for which a page of bits stands. */
#define MAP_PAGES (PAGE_SIZE * BITS_PER_BYTE)
/*
 * The largest order of a block that may be told, in pages of this kernel: a page of
 * bits may stand for a larger one.
 */
#define MAX_ORDER_TOLD (MAX_WIRE_ORDER - (PAGE_SHIFT - WIRE_SHIFT))

/* How long memory that goes offline waits for the balloon to be empty. */
#define OFFLINE_WAIT (5 * HZ)

/* Of the balloon, the most that is given at a time. */
#define GIVEN_SHARE 4
/* Of other page cache, the most pages that are taken in a second: at first, and as a part. */
#define COLD_STEP (SZ_1M >> PAGE_SHIFT)
#define COLD_SHARE 4
/* Mapped pages are left alone up to that part of all memory; in a second, a share is forgotten. */
#define MAPPED_MOST 16
#define MAPPED_SHARE 8
/* While the balloon gives way, a second in which the guest does nothing counts as so many. */
#define IDLE_COUNTS 4

/* A folio's private field: when somebody who waited for memory came to it, and that it has one. */
#define FRESH ((void *)1)
#define ASKED_NOW ((void *)(jiffies | 1))
/* Coming back sooner, one has been through all there is. */
#define ASKED_AGAIN(folio) (time_before(jiffies, (unsigned long)folio_get_private(folio) + HZ / 10))

static unsigned int backoff_ms = 1000;
module_param(backoff_ms, uint, 0644);
MODULE_PARM_DESC(backoff_ms,
		 "Grow no more for this long after the guest needed pages of the balloon");

static unsigned int backoff_max_ms = 30000;
module_param(backoff_max_ms, uint, 0644);
MODULE_PARM_DESC(backoff_max_ms,
		 "And for this long when it reads again, again and again, what it lost");

static unsigned int retry_ms = 1000;
module_param(retry_ms, uint, 0644);
MODULE_PARM_DESC(retry_ms, "Try again after this long when the guest had no memory to give");

static unsigned int reclaim_ms = 10;
module_param(reclaim_ms, uint, 0644);
MODULE_PARM_DESC(reclaim_ms, "How long kswapd has to replace cold page cache that was taken");

static unsigned int cold_mib = 8;
module_param(cold_mib, uint, 0644);
MODULE_PARM_DESC(cold_mib, "Page cache beside what is mapped that is left alone, used or not");

static unsigned int refaults = 512;
module_param(refaults, uint, 0644);
MODULE_PARM_DESC(refaults, "Pages a second which, when the guest reads them again, are too many");

/* Such a part of them is too many where the guest reads little else. */
#define REFAULTS_ALONE 8

enum { CACHEQ, RECLAIMQ, QUEUES };

struct cache_balloon {
	struct virtio_device *vdev;
	/* Where its config space begins. */
	unsigned int config_at;
	struct virtqueue *vqs[QUEUES];
	struct inode *inode;
	struct workqueue_struct *wq;
	struct delayed_work work;
	/*
	 * Each second: at its limit the balloon has nothing else to do, and reclaim
	 * may never come to it.
	 */
	struct delayed_work watch;
	wait_queue_head_t acked;

	/* Protects `stopped` against work that is queued from elsewhere. */
	spinlock_t stop_lock;
	bool stopped;

	bool has_ranges;
	bool has_tell;
	bool has_lock;

	/* Of the file: what was used before `oldest` is empty, and from `next` on. */
	pgoff_t oldest;
	pgoff_t next;
	/* Goes down under taken_lock: who sees 0 there may free the device. */
	atomic_long_t pages;
	u32 actual;
	unsigned long limit;
	struct standing standing;

	/*
	 * Memory goes offline: the pages that are moved out of it want room, and are
	 * not to be the balloon's.
	 */
	bool makes_room;
	struct completion made_room;
	struct notifier_block memory_block;

	/* Until then the guest needs its memory more. */
	unsigned long way_until;
	/* How long its page cache was given way the last time. */
	unsigned long way_for;
	/* Folios that somebody who waited came back to. */
	atomic_long_t insisted;
	unsigned long insisted_seen;
	unsigned long refaults_seen;
	unsigned long reads_seen;
	unsigned long pages_seen;
	unsigned long needs_seen_at;
	/* Of other page cache, what is left alone in this second, and what may yet be taken. */
	unsigned long cold_kept;
	unsigned long cold_left;
	/* What may be taken of it in a second, beside the limit that COLD_SHARE sets. */
	unsigned long cold_step;
	/* Pages of files that programs have mapped, or had mapped not long ago. */
	unsigned long mapped;
	u64 idle_seen;

	/* What the buffer to be sent names, and holds references to. */
	struct folio *folios[BUFFER_ENTRIES];
	unsigned int nr_folios;
	unsigned int nr_entries;
	unsigned long nr_pages;
	void *buffer;

	/* Taken by reclaim and not told yet: bits by PFN / MAP_PAGES, for what was ever told. */
	spinlock_t taken_lock;
	struct xarray taken;
	bool has_taken;
	void *taken_buffer;
};

static struct vfsmount *cache_balloon_mnt;
/* A guest has one: free_folio is told of a folio and of nothing else. */
static struct cache_balloon *the_balloon;

static void wake(struct cache_balloon *cb, unsigned int delay_ms)
{
	unsigned long flags;

	spin_lock_irqsave(&cb->stop_lock, flags);
	if (!cb->stopped)
		queue_delayed_work(cb->wq, &cb->work, msecs_to_jiffies(delay_ms));
	spin_unlock_irqrestore(&cb->stop_lock, flags);
}

/* Needs taken_lock. What has no bits was never told. */
static void note_taken(struct cache_balloon *cb, struct folio *folio)
{
	unsigned long pfn = folio_pfn(folio);
	unsigned long *map = xa_load(&cb->taken, pfn / MAP_PAGES);

	if (!map)
		return;
	bitmap_set(map, pfn % MAP_PAGES, folio_nr_pages(folio));
	cb->has_taken = true;
}

/* There are bits for the pages that a buffer is to name. */
static int prepare_taken(struct cache_balloon *cb, struct folio *folio)
{
	unsigned long index = folio_pfn(folio) / MAP_PAGES;
	void *map;
	int err;

	if (!cb->has_tell || xa_load(&cb->taken, index))
		return 0;
	map = bitmap_zalloc(MAP_PAGES, GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN);
	if (!map)
		return -ENOMEM;
	err = xa_err(xa_store(&cb->taken, index, map, GFP_KERNEL));
	if (err)
		bitmap_free(map);
	return err;
}

static bool gives_way(struct cache_balloon *cb)
{
	return time_before(jiffies, READ_ONCE(cb->way_until));
}

static void give_way(struct cache_balloon *cb, unsigned long length)
{
	unsigned long until = jiffies + length;

	if (time_after(until, READ_ONCE(cb->way_until)))
		WRITE_ONCE(cb->way_until, until);
}

/* What the balloon took since it last gave way is used: the next time is to come later. */
static void give_way_to_cache(struct cache_balloon *cb)
{
	unsigned long least = msecs_to_jiffies(backoff_ms), most = msecs_to_jiffies(backoff_max_ms);
	bool is_soon = time_before(jiffies, cb->way_until + most);

	if (!gives_way(cb))
		cb->way_for = is_soon ? clamp(4 * cb->way_for, least, most) : least;
	give_way(cb, cb->way_for);
}

/* Pages of files beside the balloon. */
static unsigned long other_pages(struct cache_balloon *cb)
{
	unsigned long all = global_node_page_state(NR_ACTIVE_FILE) +
			    global_node_page_state(NR_INACTIVE_FILE);
	unsigned long own = atomic_long_read(&cb->pages);

	return all - min(all, own);
}

/* Of these, the balloon leaves alone what programs have mapped, or had not long ago, and more. */
static unsigned long used_pages(struct cache_balloon *cb)
{
	unsigned long mapped = max(global_node_page_state(NR_FILE_MAPPED), READ_ONCE(cb->mapped));

	return min(mapped, totalram_pages() / MAPPED_MOST) +
	       ((unsigned long)cold_mib << (20 - PAGE_SHIFT));
}

/* Whether the guest has page cache that it seems not to use, and that may be taken. */
static bool has_cold(struct cache_balloon *cb)
{
	return other_pages(cb) > max(READ_ONCE(cb->cold_kept), used_pages(cb)) && !gives_way(cb);
}

/* Whether the balloon gave way not long ago, and takes less than it might. */
static bool is_careful(struct cache_balloon *cb)
{
	return cb->cold_step < other_pages(cb) / COLD_SHARE;
}

/*
 * After the balloon gave way, it takes little of the page cache in a second, and twice as
 * much in the next one where nothing is read again. It may grow by as much as the guest
 * read of what is new to it in any case: what is left alone stays.
 */
static void set_pace(struct cache_balloon *cb, bool is_read_again, unsigned long new)
{
	unsigned long others = other_pages(cb);

	WRITE_ONCE(cb->mapped, max(global_node_page_state(NR_FILE_MAPPED),
				   cb->mapped - cb->mapped / MAPPED_SHARE));
	if (is_read_again || gives_way(cb))
		cb->cold_step = COLD_STEP;
	else if (is_careful(cb))
		cb->cold_step *= 2;
	cb->cold_left = min(cb->cold_step, others / COLD_SHARE);
	WRITE_ONCE(cb->cold_kept, others - cb->cold_left);
	cb->cold_left += new;
}

/* Whether the guest's processors worked for less than a 32nd of that time in all. */
static bool is_idle(struct cache_balloon *cb, unsigned long elapsed)
{
	u64 idle = 0, before = cb->idle_seen, length = jiffies_to_usecs(elapsed);
	int cpu;

	for_each_online_cpu(cpu)
		idle += get_cpu_idle_time_us(cpu, NULL);
	cb->idle_seen = idle;
	return idle - before + length / 32 > length * num_online_cpus();
}

/*
 * Reclaim asks for a folio. While there is cold page cache, kswapd finds that, and puts
 * this folio back to the young ones; so does whoever waits for memory, once. One who
 * comes to the same folio again finds nothing else, whatever it looks like from here.
 */
static bool cache_balloon_release_folio(struct folio *folio, gfp_t gfp)
{
	struct cache_balloon *cb = the_balloon;

	if (has_cold(cb)) {
		if (current_is_kswapd() || folio_get_private(folio) == FRESH ||
		    !ASKED_AGAIN(folio)) {
			folio_change_private(folio, current_is_kswapd() ? FRESH : ASKED_NOW);
			return false;
		}
		atomic_long_inc(&cb->insisted);
	}
	folio_detach_private(folio);
	return true;
}

static void cache_balloon_invalidate_folio(struct folio *folio, size_t offset, size_t bytes)
{
	folio_detach_private(folio);
}

/* A folio left the page cache, whoever took it. Called from within reclaim. */
static void cache_balloon_free_folio(struct folio *folio)
{
	struct cache_balloon *cb = the_balloon;
	unsigned long flags;

	stands(&cb->standing, "pages were taken from it");
	wake(cb, backoff_ms);
	spin_lock_irqsave(&cb->taken_lock, flags);
	note_taken(cb, folio);
	atomic_long_sub(folio_nr_pages(folio), &cb->pages);
	spin_unlock_irqrestore(&cb->taken_lock, flags);
}

/* The new folio takes the old one's place; its memory is the host's loss until it is reclaimed. */
static int cache_balloon_migrate_folio(struct address_space *mapping, struct folio *dst,
				       struct folio *src, enum migrate_mode mode)
{
	struct cache_balloon *cb = the_balloon;
	unsigned long flags;
	int err;

	err = folio_migrate_mapping(mapping, dst, src, 0);
	if (err)
		return err;
	if (folio_test_private(src))
		folio_attach_private(dst, folio_detach_private(src));
	folio_migrate_flags(dst, src);
	spin_lock_irqsave(&cb->taken_lock, flags);
	note_taken(cb, src);
	spin_unlock_irqrestore(&cb->taken_lock, flags);
	wake(cb, retry_ms);
	return 0;
}

static const struct address_space_operations cache_balloon_aops = {
	.release_folio = cache_balloon_release_folio,
	.invalidate_folio = cache_balloon_invalidate_folio,
	.free_folio = cache_balloon_free_folio,
	.migrate_folio = cache_balloon_migrate_folio,
	.dirty_folio = noop_dirty_folio,
};

void cache_balloon_acked(struct virtqueue *vq)
{
	wake_up(&the_balloon->acked);
}

/* Fills taken_buffer; returns how many entries it has. */
static unsigned int collect_taken(struct cache_balloon *cb)
{
	unsigned long most_order = cb->has_ranges ? min(ilog2(MAP_PAGES), MAX_ORDER_TOLD) : 0;
	unsigned int count = 0;
	unsigned long index, *map;

	if (!READ_ONCE(cb->has_taken))
		return 0;
	WRITE_ONCE(cb->has_taken, false);
	xa_for_each(&cb->taken, index, map) {
		unsigned long at = 0, end;

		spin_lock_irq(&cb->taken_lock);
		while ((at = find_next_bit(map, MAP_PAGES, at)) < MAP_PAGES) {
			unsigned int order = min(at ? __ffs(at) : BITS_PER_LONG, most_order);

			if (count + ENTRIES_PER_PAGE > BUFFER_ENTRIES) {
				cb->has_taken = true;
				spin_unlock_irq(&cb->taken_lock);
				return count;
			}
			end = find_next_zero_bit(map, MAP_PAGES, at);
			order = min_t(unsigned int, order, ilog2(end - at));
			bitmap_clear(map, at, 1UL << order);
			count = put_entry(cb->has_ranges, cb->taken_buffer, count,
					  index * MAP_PAGES + at, order);
			at += 1UL << order;
		}
		spin_unlock_irq(&cb->taken_lock);
	}
	return count;
}

static int send(struct cache_balloon *cb, unsigned int queue, void *buffer, unsigned int entries)
{
	return send_standing(&cb->standing, cb->vqs[queue], &cb->acked, buffer, entries,
			     cb->has_ranges);
}

/* Must be done before the same pages are given up again. */
static int tell_taken(struct cache_balloon *cb)
{
	for (;;) {
		unsigned int count = collect_taken(cb);
		int err;

		if (!count)
			return 0;
		err = send(cb, RECLAIMQ, cb->taken_buffer, count);
		if (err)
			return err;
		cond_resched();
	}
}

/* What the buffer names is the host's once it is acked, and reclaim's once it is put. */
static int give_up(struct cache_balloon *cb)
{
	unsigned int n;
	int err;

	if (!cb->nr_folios)
		return 0;
	err = tell_taken(cb);
	if (!err)
		err = send(cb, CACHEQ, cb->buffer, cb->nr_entries);
	for (n = 0; n < cb->nr_folios; n++)
		folio_put(cb->folios[n]);
	cb->nr_folios = 0;
	cb->nr_entries = 0;
	cb->nr_pages = 0;
	return err;
}

/* Large where it is free. Never a page for which somebody would have to wait. */
static struct folio *take_folio(unsigned int most, bool *short_of)
{
	const gfp_t gfp = (GFP_HIGHUSER_MOVABLE | __GFP_NOWARN | __GFP_NOMEMALLOC) & ~__GFP_RECLAIM;
	struct folio *folio;
	int order;

	for (order = most; order >= 0; order--) {
		/* Until 6.9 a folio of two pages could not be split. */
		if (order == 1 && LINUX_VERSION_CODE < KERNEL_VERSION(6, 9, 0))
			continue;
		folio = folio_alloc(gfp, order);
		if (folio)
			return folio;
	}
	*short_of = true;
	/* Wakes kswapd up, which makes more of them free. */
	return folio_alloc(gfp | __GFP_KSWAPD_RECLAIM, 0);
}

/* One more folio of at most `room` pages in the balloon and in the buffer. */
static int add_folio(struct cache_balloon *cb, unsigned long room, bool *short_of)
{
	struct address_space *mapping = cb->inode->i_mapping;
	/* Without ranges a folio has an entry for each page. */
	unsigned int most = cb->has_ranges ? min_t(unsigned int, MAX_ORDER_USED, ilog2(room)) : 0;
	struct folio *folio;
	pgoff_t index;
	int err;

	folio = take_folio(most, short_of);
	if (!folio)
		return -ENOMEM;
	index = round_up(cb->next, folio_nr_pages(folio));
	atomic_long_add(folio_nr_pages(folio), &cb->pages);
	err = prepare_taken(cb, folio);
	if (!err)
		err = filemap_add_folio(mapping, folio, index,
					GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN);
	if (err) {
		atomic_long_sub(folio_nr_pages(folio), &cb->pages);
		folio_put(folio);
		*short_of = true;
		return err;
	}
	cb->next = index + folio_nr_pages(folio);
	folio_mark_uptodate(folio);
	/* So that reclaim asks. */
	folio_attach_private(folio, FRESH);
	folio_unlock(folio);
	cb->folios[cb->nr_folios++] = folio;
	cb->nr_pages += folio_nr_pages(folio);
	cb->nr_entries = put_entry(cb->has_ranges, cb->buffer, cb->nr_entries, folio_pfn(folio),
				   folio_order(folio));
	return 0;
}

/* Takes pages from the front of the file until no more than `most` are left. */
static void shrink(struct cache_balloon *cb, unsigned long most)
{
	struct address_space *mapping = cb->inode->i_mapping;

	while ((unsigned long)atomic_long_read(&cb->pages) > most && cb->oldest < cb->next) {
		loff_t from = (loff_t)cb->oldest << PAGE_SHIFT;

		cb->oldest = round_down(cb->oldest, CHUNK_PAGES) + CHUNK_PAGES;
		truncate_inode_pages_range(mapping, from, ((loff_t)cb->oldest << PAGE_SHIFT) - 1);
		cond_resched();
	}
	cb->next = max(cb->next, cb->oldest);
}

/* Reclaim may have taken a folio out of the file and not said so yet. */
static void shrink_to_nothing(struct cache_balloon *cb)
{
	shrink(cb, 0);
	for (;;) {
		bool gone;

		spin_lock_irq(&cb->taken_lock);
		gone = !atomic_long_read(&cb->pages);
		spin_unlock_irq(&cb->taken_lock);
		if (gone)
			return;
		usleep_range(1000, 2000);
	}
}

static u32 read_field(struct cache_balloon *cb, unsigned int field)
{
	__le32 value;

	cb->vdev->config->get(cb->vdev, cb->config_at + field, &value, sizeof(value));
	return le32_to_cpu(value);
}

static void write_field(struct cache_balloon *cb, unsigned int field, u32 value)
{
	__le32 wire = cpu_to_le32(value);

	cb->vdev->config->set(cb->vdev, cb->config_at + field, &wire, sizeof(wire));
}

#define FIELD(name) offsetof(struct virtio_cache_balloon_config, name)
#define READ_FIELD(cb, name) read_field(cb, FIELD(name))
#define WRITE_FIELD(cb, name, value) write_field(cb, FIELD(name), value)

static void write_actual(struct cache_balloon *cb)
{
	u32 actual = to_wire(atomic_long_read(&cb->pages));

	if (actual == cb->actual)
		return;
	cb->actual = actual;
	WRITE_FIELD(cb, actual, actual);
}

static void write_stats(struct cache_balloon *cb)
{
	if (!READ_FIELD(cb, need_stats))
		return;
	WRITE_FIELD(cb, pages_total, to_wire(totalram_pages()));
	WRITE_FIELD(cb, pages_free, to_wire(global_zone_page_state(NR_FREE_PAGES)));
	WRITE_FIELD(cb, need_stats, 0);
}

static void give_all(struct cache_balloon *cb)
{
	shrink_to_nothing(cb);
	tell_taken(cb);
	write_actual(cb);
}

static bool locked(struct cache_balloon *cb)
{
	bool lock, is;

	if (!cb->has_lock)
		return false;
	lock = READ_FIELD(cb, lock);
	is = READ_FIELD(cb, locked);
	if (lock == is)
		return lock;
	if (lock)
		give_all(cb);
	WRITE_FIELD(cb, locked, lock);
	return lock;
}

/* Pages that the guest has read from disks since it booted. */
static unsigned long pages_read(void)
{
	unsigned long events[NR_VM_EVENT_ITEMS] = {};

	all_vm_events(events);
	return events[PGPGIN] >> (PAGE_SHIFT - SECTOR_SHIFT);
}

/*
 * What the guest reads again was in its page cache not long ago. A few pages are not
 * enough beside others: a lasting stream now and then loses pages that were read ahead
 * of it.
 */
static void watch_needs(struct cache_balloon *cb)
{
	unsigned long refaulted = global_node_page_state(WORKINGSET_REFAULT_FILE);
	unsigned long insisted = atomic_long_read(&cb->insisted);
	unsigned long elapsed = max(jiffies - cb->needs_seen_at, (unsigned long)HZ);
	unsigned long most = mult_frac((unsigned long)refaults, elapsed, HZ);
	unsigned long again = refaulted - cb->refaults_seen;
	unsigned long read = pages_read() - cb->reads_seen;
	bool is_read_again = again > most || (again > most / REFAULTS_ALONE && again > read / 2);
	bool is_insisted_on = insisted - cb->insisted_seen > most;
	unsigned long pages = atomic_long_read(&cb->pages);

	/*
	 * Reclaim may take what is read again before it takes the balloon, round after
	 * round: what it leaves of the balloon is given back for it.
	 */
	if (is_read_again && gives_way(cb) && pages + most >= cb->pages_seen)
		shrink(cb, pages - min(pages / GIVEN_SHARE, again));
	if (is_read_again)
		give_way_to_cache(cb);
	if (is_insisted_on)
		give_way(cb, msecs_to_jiffies(backoff_ms));
	if (!is_read_again && !is_insisted_on && jiffies - cb->needs_seen_at < HZ)
		return;
	/* Who waits for a disk is not idle. */
	if (is_idle(cb, elapsed) && read <= most / REFAULTS_ALONE && gives_way(cb))
		WRITE_ONCE(cb->way_until, cb->way_until - (IDLE_COUNTS - 1) * elapsed);
	set_pace(cb, is_read_again, read - min(read, again));
	cb->refaults_seen = refaulted;
	cb->reads_seen += read;
	cb->insisted_seen = insisted;
	cb->needs_seen_at = jiffies;
	cb->pages_seen = atomic_long_read(&cb->pages);
}

/* Free pages beyond those for which kswapd would take pages of the balloon at once. */
static unsigned long spare_pages(void)
{
	unsigned long free = 0, kept = 0;
	int node, n;

	for_each_online_node(node) {
		for (n = 0; n < MAX_NR_ZONES; n++) {
			struct zone *zone = &NODE_DATA(node)->node_zones[n];

			if (zone_managed_pages(zone) < totalram_pages() / SMALL_ZONE)
				continue;
			free += zone_page_state(zone, NR_FREE_PAGES);
			kept += high_wmark_pages(zone);
		}
	}
	return free > kept ? free - kept : 0;
}

static void cache_balloon_work(struct work_struct *work)
{
	struct cache_balloon *cb = container_of(to_delayed_work(work), struct cache_balloon, work);
	unsigned long target, most_pages, pages, free;
	bool short_of = false, cold;

	write_stats(cb);
	if (locked(cb)) {
		stands(&cb->standing, "the host wants all pages");
		return;
	}
	if (READ_ONCE(cb->makes_room)) {
		give_all(cb);
		stands(&cb->standing, "memory goes offline");
		complete(&cb->made_room);
		return;
	}
	target = READ_FIELD(cb, num_pages) / ENTRIES_PER_PAGE;
	WRITE_ONCE(cb->limit, target);
	if ((unsigned long)atomic_long_read(&cb->pages) > target)
		shrink(cb, target);
	watch_needs(cb);
	pages = atomic_long_read(&cb->pages);
	cold = has_cold(cb) && cb->cold_left;
	free = spare_pages();
	/*
	 * What the host has yet to ack cannot be reclaimed, and the host may be away
	 * for a while: it must be little against what can be reclaimed meanwhile.
	 */
	most_pages = min3(max(pages / 4, MIN_IN_FLIGHT), target - min(target, pages),
			  cold ? free + cb->cold_left : free);
	if (gives_way(cb))
		most_pages = 0;
	while (!short_of && cb->nr_entries + ENTRIES_PER_PAGE <= BUFFER_ENTRIES &&
	       cb->nr_pages < most_pages)
		if (add_folio(cb, most_pages - cb->nr_pages, &short_of))
			break;
	if (!cb->nr_pages)
		short_of = true;
	if (cb->nr_pages > free)
		cb->cold_left -= min(cb->cold_left, cb->nr_pages - free);
	if (give_up(cb) || tell_taken(cb)) {
		stands(&cb->standing, "the device is broken");
		return;
	}
	write_actual(cb);
	if ((unsigned long)atomic_long_read(&cb->pages) >= target)
		stands(&cb->standing, "has reached its limit");
	else if (gives_way(cb))
		stands(&cb->standing, "gives way: the guest needed its pages");
	else if (short_of && !cold && is_careful(cb))
		stands(&cb->standing, "leaves the cache: the guest needed its pages not long ago");
	else if (short_of)
		stands(&cb->standing, cold ? "waits for cold page cache" :
					     "the guest has no memory to spare");
	else
		stands(&cb->standing, "grows");
	if ((unsigned long)atomic_long_read(&cb->pages) < target)
		wake(cb, !short_of ? 0 : cold ? reclaim_ms : retry_ms);
}

static void watch_again(struct cache_balloon *cb)
{
	spin_lock_irq(&cb->stop_lock);
	if (!cb->stopped)
		queue_delayed_work(cb->wq, &cb->watch, HZ);
	spin_unlock_irq(&cb->stop_lock);
}

void cache_balloon_changed(struct cache_balloon *cb)
{
	unsigned long flags;

	spin_lock_irqsave(&cb->stop_lock, flags);
	if (!cb->stopped)
		mod_delayed_work(cb->wq, &cb->work, 0);
	spin_unlock_irqrestore(&cb->stop_lock, flags);
}

/* The work may rest for long after pages were taken; it is woken to give way. */
static void cache_balloon_watch(struct work_struct *work)
{
	struct cache_balloon *cb = container_of(to_delayed_work(work), struct cache_balloon, watch);

	if (global_node_page_state(WORKINGSET_REFAULT_FILE) != cb->refaults_seen)
		watch_needs(cb);
	if (gives_way(cb))
		cache_balloon_changed(cb);
	watch_again(cb);
}

/*
 * Linux would move folios that are worth nothing. To have a place for large ones it
 * also compacts, which waits while many pages are isolated, and those are its own.
 * The host may be away: Linux holds a lock of all memory meanwhile, and goes on without.
 */
static int memory_changes(struct notifier_block *block, unsigned long action, void *unused)
{
	struct cache_balloon *cb = container_of(block, struct cache_balloon, memory_block);

	if (action != MEM_GOING_OFFLINE && action != MEM_OFFLINE && action != MEM_CANCEL_OFFLINE)
		return NOTIFY_OK;
	reinit_completion(&cb->made_room);
	WRITE_ONCE(cb->makes_room, action == MEM_GOING_OFFLINE);
	cache_balloon_changed(cb);
	if (action == MEM_GOING_OFFLINE)
		wait_for_completion_timeout(&cb->made_room, OFFLINE_WAIT);
	return NOTIFY_OK;
}

void cache_balloon_start(struct cache_balloon *cb, struct virtqueue *cacheq,
			 struct virtqueue *reclaimq)
{
	cb->vqs[CACHEQ] = cacheq;
	cb->vqs[RECLAIMQ] = reclaimq;
	cb->actual = 0;
	stands(&cb->standing, "starts");
	spin_lock_irq(&cb->stop_lock);
	cb->stopped = false;
	spin_unlock_irq(&cb->stop_lock);
	wake(cb, 0);
	watch_again(cb);
}

void cache_balloon_show(struct seq_file *file, struct cache_balloon *cb)
{
	show_pages(file, "cache limit", READ_ONCE(cb->limit));
	show_pages(file, "cache held", atomic_long_read(&cb->pages));
	show_standing(file, "cache", &cb->standing);
	seq_printf(file, "cache insisted on: %ld times\n", atomic_long_read(&cb->insisted));
}

/* Afterwards the balloon is empty. */
void cache_balloon_halt(struct cache_balloon *cb)
{
	spin_lock_irq(&cb->stop_lock);
	cb->stopped = true;
	spin_unlock_irq(&cb->stop_lock);
	cancel_delayed_work_sync(&cb->work);
	cancel_delayed_work_sync(&cb->watch);
	give_all(cb);
}

static void free_balloon(struct cache_balloon *cb)
{
	unsigned long index, *map;

	if (cb->inode)
		iput(cb->inode);
	if (cb->wq)
		destroy_workqueue(cb->wq);
	xa_for_each(&cb->taken, index, map)
		bitmap_free(map);
	xa_destroy(&cb->taken);
	kfree(cb->buffer);
	kfree(cb->taken_buffer);
	kfree(cb);
}

/* Of a device that was halted. */
void cache_balloon_destroy(struct cache_balloon *cb)
{
	unregister_memory_notifier(&cb->memory_block);
	/* A free_folio that has let go of the device may have yet to return. */
	synchronize_rcu();
	the_balloon = NULL;
	free_balloon(cb);
}

/* -EBUSY: the guest has another one. */
struct cache_balloon *cache_balloon_create(struct virtio_device *vdev, unsigned int config_at)
{
	struct cache_balloon *cb;

	cb = kzalloc(sizeof(*cb), GFP_KERNEL);
	if (!cb)
		return ERR_PTR(-ENOMEM);
	/* Two devices may be found at the same time. */
	if (cmpxchg(&the_balloon, NULL, cb)) {
		kfree(cb);
		return ERR_PTR(-EBUSY);
	}
	cb->vdev = vdev;
	cb->config_at = config_at;
	cb->stopped = true;
	cb->has_ranges = virtio_has_feature(vdev, VIRTIO_CACHE_BALLOON_F_RANGES);
	cb->has_tell = virtio_has_feature(vdev, VIRTIO_CACHE_BALLOON_F_TELL_RECLAIM);
	cb->has_lock = virtio_has_feature(vdev, VIRTIO_CACHE_BALLOON_F_LOCK);
	spin_lock_init(&cb->stop_lock);
	spin_lock_init(&cb->taken_lock);
	init_waitqueue_head(&cb->acked);
	init_completion(&cb->made_room);
	INIT_DELAYED_WORK(&cb->work, cache_balloon_work);
	/* It does not wake a processor that is idle: who reads again is not. */
	INIT_DEFERRABLE_WORK(&cb->watch, cache_balloon_watch);
	xa_init(&cb->taken);
	cb->way_until = jiffies;
	cb->cold_step = totalram_pages();
	cb->refaults_seen = global_node_page_state(WORKINGSET_REFAULT_FILE);
	cb->reads_seen = pages_read();
	cb->needs_seen_at = jiffies;
	cb->buffer = kmalloc_array(BUFFER_ENTRIES, 8, GFP_KERNEL);
	cb->taken_buffer = kmalloc_array(BUFFER_ENTRIES, 8, GFP_KERNEL);
	cb->wq = alloc_ordered_workqueue("cache_balloon", WQ_FREEZABLE);
	if (!cb->buffer || !cb->taken_buffer || !cb->wq)
		goto fail;
	cb->inode = alloc_anon_inode(cache_balloon_mnt->mnt_sb);
	if (IS_ERR(cb->inode)) {
		cb->inode = NULL;
		goto fail;
	}
	cb->inode->i_mapping->a_ops = &cache_balloon_aops;
	mapping_set_gfp_mask(cb->inode->i_mapping, GFP_HIGHUSER_MOVABLE);
	mapping_set_large_folios(cb->inode->i_mapping);
	/* What is split loses the pages beyond the end of the file, and nobody is told. */
	i_size_write(cb->inode, MAX_LFS_FILESIZE);
	/* No page of it comes back: reclaim shall not remember that it had been there. */
	mapping_set_exiting(cb->inode->i_mapping);
	cb->memory_block.notifier_call = memory_changes;
	if (!register_memory_notifier(&cb->memory_block))
		return cb;

fail:
	the_balloon = NULL;
	free_balloon(cb);
	return ERR_PTR(-ENOMEM);
}

static int cache_balloon_init_fs_context(struct fs_context *fc)
{
	return init_pseudo(fc, CACHE_BALLOON_MAGIC) ? 0 : -ENOMEM;
}

/* Without an owner: its only mount is the module's own, and would keep it loaded for ever. */
static struct file_system_type cache_balloon_fs = {
	.name = "cache-balloon",
	.init_fs_context = cache_balloon_init_fs_context,
	.kill_sb = kill_anon_super,
};

int __init cache_balloon_init(void)
{
	cache_balloon_mnt = kern_mount(&cache_balloon_fs);
	return PTR_ERR_OR_ZERO(cache_balloon_mnt);
}

void cache_balloon_exit(void)
{
	kern_unmount(cache_balloon_mnt);
}
