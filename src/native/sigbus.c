/*
 * Guest memory lies in files that others may cut short. Touching what is cut off raises SIGBUS, in whatever code did
 * the touching, so only a signal handler can take it. It finds the mapping, puts zeros where the hole is, and counts.
 *
 * The handler takes no lock and allocates nothing: it walks chunks of slots that are never freed, and reads each slot
 * between two looks at its version. Those who write slots touch no guest memory meanwhile, so the handler never
 * interrupts one of them on its own thread.
 */
#define _GNU_SOURCE
#include "native.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>

#define SLOTS 512

struct bd_guard {
	/* Odd while the range is being written. */
	uint32_t version;
	uint32_t taken;
	uint32_t faults;
	uintptr_t start;
	size_t length;
	size_t page;
};

struct chunk {
	struct chunk *next;
	struct bd_guard slots[SLOTS];
};

static struct chunk *chunks;
static uint32_t all_faults;
static struct sigaction previous;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int install_error;

/* Whether the address lies in the slot's range, which goes to `start`, `length` and `page`. */
static int holds(struct bd_guard *slot, uintptr_t at, uintptr_t *start, size_t *length, size_t *page)
{
	uint32_t version = __atomic_load_n(&slot->version, __ATOMIC_ACQUIRE);

	*start = __atomic_load_n(&slot->start, __ATOMIC_RELAXED);
	*length = __atomic_load_n(&slot->length, __ATOMIC_RELAXED);
	*page = __atomic_load_n(&slot->page, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	/* Whoever touches a mapping keeps it mapped meanwhile, so one that changes is not the one that was touched. */
	if ((version & 1) != 0 || __atomic_load_n(&slot->version, __ATOMIC_RELAXED) != version)
		return 0;
	return *length > 0 && at >= *start && at - *start < *length;
}

static int patch(uintptr_t at)
{
	struct chunk *chunk = __atomic_load_n(&chunks, __ATOMIC_ACQUIRE);
	uintptr_t start, piece;
	size_t length, page, n;

	for (; chunk != NULL; chunk = chunk->next) {
		for (n = 0; n < SLOTS; n++) {
			if (!holds(&chunk->slots[n], at, &start, &length, &page))
				continue;
			/* A huge page can be replaced as a whole only. */
			piece = start + (at - start) / page * page;
			if (page > start + length - piece)
				page = start + length - piece;
			if (mmap((void *)piece, page, PROT_READ | PROT_WRITE,
				 MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED)
				return 0;
			__atomic_fetch_add(&chunk->slots[n].faults, 1, __ATOMIC_RELAXED);
			__atomic_fetch_add(&all_faults, 1, __ATOMIC_RELEASE);
			return 1;
		}
	}
	return 0;
}

static void pass_on(int number, siginfo_t *info, void *context)
{
	if ((previous.sa_flags & SA_SIGINFO) != 0) {
		previous.sa_sigaction(number, info, context);
	} else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
		previous.sa_handler(number);
	} else {
		/* A fault comes again when this returns; a signal that was sent does not. */
		sigaction(number, &previous, NULL);
		if (info->si_code <= 0)
			raise(number);
	}
}

static void handle(int number, siginfo_t *info, void *context)
{
	int error = errno;
	/* Not one that somebody sent, nor BUS_MCEERR_AO, which tells of a page that nobody touches now. */
	int touched = info->si_code == BUS_ADRERR || info->si_code == BUS_MCEERR_AR;

	if (!touched || !patch((uintptr_t)info->si_addr))
		pass_on(number, info, context);
	errno = error;
}

static void install(void)
{
	struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART };

	sigemptyset(&action.sa_mask);
	install_error = sigaction(SIGBUS, &action, &previous) < 0 ? -errno : 0;
}

static struct bd_guard *take(struct chunk *chunk)
{
	size_t n;

	for (; chunk != NULL; chunk = chunk->next)
		for (n = 0; n < SLOTS; n++)
			if (!__atomic_exchange_n(&chunk->slots[n].taken, 1, __ATOMIC_ACQUIRE))
				return &chunk->slots[n];
	return NULL;
}

static void set(struct bd_guard *slot, uintptr_t start, size_t length, size_t page)
{
	__atomic_fetch_add(&slot->version, 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	__atomic_store_n(&slot->start, start, __ATOMIC_RELAXED);
	__atomic_store_n(&slot->length, length, __ATOMIC_RELAXED);
	__atomic_store_n(&slot->page, page, __ATOMIC_RELAXED);
	__atomic_fetch_add(&slot->version, 1, __ATOMIC_RELEASE);
}

int bd_guard(struct bd_mapping *mapping, size_t page)
{
	struct bd_guard *slot;
	struct chunk *chunk;

	if (pthread_once(&once, install) != 0)
		return -EAGAIN;
	if (install_error != 0)
		return install_error;
	slot = take(__atomic_load_n(&chunks, __ATOMIC_ACQUIRE));
	if (slot == NULL) {
		chunk = calloc(1, sizeof(*chunk));
		if (chunk == NULL)
			return -ENOMEM;
		slot = &chunk->slots[0];
		slot->taken = 1;
		chunk->next = __atomic_load_n(&chunks, __ATOMIC_RELAXED);
		while (!__atomic_compare_exchange_n(&chunks, &chunk->next, chunk, 0, __ATOMIC_RELEASE,
						    __ATOMIC_RELAXED))
			;
	}
	__atomic_store_n(&slot->faults, 0, __ATOMIC_RELAXED);
	set(slot, (uintptr_t)mapping->address, mapping->length, page);
	mapping->guard = slot;
	return 0;
}

void bd_unguard(struct bd_mapping *mapping)
{
	struct bd_guard *slot = mapping->guard;

	mapping->guard = NULL;
	if (slot == NULL)
		return;
	set(slot, 0, 0, 0);
	__atomic_store_n(&slot->taken, 0, __ATOMIC_RELEASE);
}

uint32_t bd_faults(const struct bd_mapping *mapping)
{
	return mapping->guard == NULL ? 0 : __atomic_load_n(&mapping->guard->faults, __ATOMIC_RELAXED);
}

uint32_t *bd_all_faults(void)
{
	return &all_faults;
}
