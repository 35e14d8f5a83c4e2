/*
 * The helper: system calls that Node lacks. src/os/native.ts loads it and is its only caller. A call goes through
 * a file of glue (js-*.c: arguments from JavaScript) to one file of a concern: socket.c, fd.c, eventfd.c, memfd.c, mapping.c,
 * discard.c, resident.c, watch.c; behind.c and writer.c do work on threads of their own, and sigbus.c catches memory that is gone.
 *
 * The contract between the glue (js-*.c, watch.c, behind.c and writer.c) and the system calls. Every function returns a value >= 0 or a
 * negative errno; none keeps state but what it is handed, except sigbus.c. File descriptors that they make are
 * close-on-exec and non-blocking.
 */
#ifndef BALLOOND_NATIVE_H
#define BALLOOND_NATIVE_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

/* The kernel's limit for one message (net/core/scm.c, SCM_MAX_FD). */
#define BD_MAX_FDS 253

/* socket.c: Unix stream sockets. */
int bd_listen(const char *path, mode_t mode);
int bd_connect(const char *path);
int bd_accept(int listener);
/*
 * Also sends the connection on, with a message, to the datagram socket `told`, with as little as possible in between.
 * -EBUSY when that takes nothing.
 */
int bd_accept_and_tell(int listener, int told, const void *text, size_t length);
int bd_socketpair(int fds[2]);
int bd_is_listening(int fd);
int bd_peer_pid(int fd);
/* Received fds go to `fds` (room for BD_MAX_FDS), their number to `count`. Where this
 * process may not have as many files open, all are closed: -EMFILE; where it may not for another reason, -EMSGSIZE. */
ssize_t bd_receive(int fd, void *into, size_t length, int32_t *fds, int32_t *count);
ssize_t bd_send(int fd, const void *from, size_t length, const int32_t *fds, size_t count);
int bd_bound_path(int fd, char *path, size_t size);
int bd_datagram_connect(const char *path);
int bd_datagram_bind(const char *path);

/*
 * Messages that are looked at before they are taken, so that a process that ends in between loses none: the next one
 * finds them in the socket. SO_PEEK_OFF lives as long as the socket. The kernel counts it up by what is looked at and down
 * by what is taken (sk_peek_offset_fwd, sk_peek_offset_bwd), so that it tells whether a message was taken.
 */
/*
 * The bytes behind those that were looked at, up to `length`, as bd_receive() hands them over, with copies of the fds. It
 * ends behind the first bytes that fds came with, which may be those of a later message, also where `length` would end
 * before. Comes after bd_set_peek_offset().
 */
ssize_t bd_peek(int fd, void *into, size_t length, int32_t *fds, int32_t *count);
/* Takes bytes that were looked at. */
int bd_consume(int fd, size_t length);
/* How many bytes were looked at and not taken; -1 when nobody began to look. */
int bd_peek_offset(int fd);
int bd_set_peek_offset(int fd, int offset);
/* Whether the peer sends no more. */
int bd_hung_up(int fd);
/* Sends from a file, from its offset on. The kernel moves that by what it sent: a count that outlives the process. */
ssize_t bd_send_file(int fd, int file, size_t length);
/* What was sent and not read by the peer; more than 0 when there is any. */
int bd_unread(int fd);
/* Why poll reported an error on this socket: a positive errno; EIO when nobody knows. */
int bd_pending_error(int fd);

/* fd.c */
int bd_close(int fd);
int bd_duplicate(int fd);
int bd_set_nonblocking(int fd);
/* The offset of an open file, whoever has it open. */
int64_t bd_offset(int fd);
int64_t bd_set_offset(int fd, off_t offset);
/* The bytes that a file takes up. */
int64_t bd_allocated(int fd);
int bd_is_memory(int fd);
/* Frees that part of a file; it reads as zeros then. */
int bd_punch(int fd, off_t offset, off_t length);

/* mapping.c: shared file mappings. */
struct bd_mapping {
	uint8_t *address;
	size_t length;
	off_t file_offset;
	struct bd_guard *guard;
};
/* -ENXIO when the range ends beyond the file. What is cut off the file later reads as zeros and is counted (sigbus.c). */
int bd_map(struct bd_mapping *mapping, int fd, off_t offset, size_t length);
int bd_unmap(struct bd_mapping *mapping);

/*
 * sigbus.c: what to do when a mapping's file was cut short, or has no page to give. A signal handler belongs to the
 * whole process, and so do the table of mappings it looks into and the count of all its faults: they are the one piece
 * of state behind this contract. SIGBUS anywhere else, or sent by somebody, goes to who had it before.
 */
/* From now on a page (`page` bytes) of the mapping that cannot be had becomes a private one of zeros. */
int bd_guard(struct bd_mapping *mapping, size_t page);
/* Before it is unmapped. */
void bd_unguard(struct bd_mapping *mapping);
/* How many pages of it became zeros. */
uint32_t bd_faults(const struct bd_mapping *mapping);
/* The same of all mappings that ever were, modulo 2^32, at an address that lasts. */
uint32_t *bd_all_faults(void);

/* clock.c: microseconds since the host booted, those while it was suspended included. */
int64_t bd_boot_us(void);

/* memfd.c */
int bd_memfd(const char *name, off_t size, int huge_page_shift);
/* Whoever has it open, it stays as it is from now on. */
int bd_seal(int fd);

/* eventfd.c */
int bd_eventfd(unsigned int initial);
/* Sends signals from one thread. The handler of the timer's tick, which runs in that thread, reads and sets the rest. */
struct bd_signaller {
	unsigned long aio;
	timer_t timer;
	int opened, timed, spare, slot;
	volatile sig_atomic_t ticking, moved, fd;
};
/* Blocks for a tick or two, once: 1 when the counter was raised, 0 when it is full or the fd takes nothing. */
int bd_eventfd_signal(struct bd_signaller *signaller, int fd);
void bd_signaller_close(struct bd_signaller *signaller);
/* Never blocks: the counter, or 0 when there was nothing. */
int64_t bd_eventfd_drain(int fd);

/*
 * discard.c: removing pages from the file behind a shared mapping, and bringing them back. A hole of hugetlbfs has no claim to a
 * page of the pool any more: whoever touches it while the pool is empty gets SIGBUS. BD_ALLOCATE gives it a page, of zeros, or
 * fails with ENOSPC; BD_RESERVE has the pool keep one for it, which costs next to nothing, or fails with ENOMEM.
 */
enum bd_discard_method {
	BD_PROCESS_MADVISE = 0,
	BD_MADVISE = 1,
	BD_FALLOCATE = 2,
	BD_ALLOCATE = 3,
	BD_RESERVE = 4,
};
int bd_pidfd_self(void);
size_t bd_page_bytes(void);
/* Hands up to 1024 ranges to process_madvise() at once; returns how many it did whole. */
size_t bd_discard_vector(const struct bd_mapping *mapping, int pidfd, const double *ranges, size_t count);
/*
 * `ranges`: `count` pairs of offset and length in bytes, inside the mapping (the caller checked). Returns how
 * many were discarded from the front; when fewer than `count`, `error` is the errno of the next one. A range that
 * is not whole pages is EINVAL by every method (the kernel would round some up, and zero parts by others).
 * `fd` is the pidfd of this process for BD_PROCESS_MADVISE, the mapped file for BD_FALLOCATE, BD_ALLOCATE and BD_RESERVE.
 */
size_t bd_discard(const struct bd_mapping *mapping, int fd, const double *ranges, size_t count,
		  enum bd_discard_method method, int *error);

/* resident.c: what the file behind a mapping holds. */
enum bd_resident_method {
	BD_CACHESTAT = 0,
	BD_MINCORE = 1,
};
/* `bytes[n]` becomes what the file holds of range n; `ranges` as above. Stops at the first that fails. */
int bd_resident(const struct bd_mapping *mapping, int fd, const double *ranges, size_t count,
		enum bd_resident_method method, double *bytes);
/* 1 when all of the range, whole words, reads as zeros, 0 when not. Holes stay holes. */
int bd_reads_as_zeros(const struct bd_mapping *mapping, int fd, size_t offset, size_t length);

#endif
