/*
 * The contract between the glue (binding.c) and the system calls. Every function returns a value >= 0 or a
 * negative errno; none keeps state but what it is handed. File descriptors that they make are close-on-exec and non-blocking.
 */
#ifndef BALLOOND_NATIVE_H
#define BALLOOND_NATIVE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The kernel's limit for one message (net/core/scm.c, SCM_MAX_FD). */
#define BD_MAX_FDS 253

/* socket.c: Unix stream sockets. */
int bd_listen(const char *path, mode_t mode);
int bd_connect(const char *path);
int bd_accept(int listener);
int bd_socketpair(int fds[2]);
int bd_is_listening(int fd);
int bd_peer(int fd, int32_t pid_uid_gid[3]);
/* Received fds go to `fds` (room for BD_MAX_FDS), their number to `count`. A control message that was cut
 * closes them all: -EMSGSIZE. */
ssize_t bd_receive(int fd, void *into, size_t length, int32_t *fds, int32_t *count);
ssize_t bd_send(int fd, const void *from, size_t length, const int32_t *fds, size_t count);
/* Why poll reported an error on this socket: a positive errno; EIO when nobody knows. */
int bd_pending_error(int fd);

/* fd.c */
int bd_close(int fd);
int bd_duplicate(int fd);
int bd_set_nonblocking(int fd);

/* mapping.c: shared file mappings. */
struct bd_mapping {
	uint8_t *address;
	size_t length;
	off_t file_offset;
};
/* -ENXIO when the range ends beyond the file: touching that part would be a SIGBUS. */
int bd_map(struct bd_mapping *mapping, int fd, off_t offset, size_t length);
int bd_unmap(struct bd_mapping *mapping);

/* memfd.c */
int bd_memfd(const char *name, off_t size, int huge_page_shift);

/* eventfd.c */
int bd_eventfd(unsigned int initial);
struct bd_signaller {
	unsigned long aio;
	int opened;
};
/* Never blocks: 1 when the counter was raised, 0 when it is full or the fd takes nothing. */
int bd_eventfd_signal(struct bd_signaller *signaller, int fd);
void bd_signaller_close(struct bd_signaller *signaller);
/* Never blocks: the counter, or 0 when there was nothing. */
int64_t bd_eventfd_drain(int fd);

/* discard.c: removing pages from the file behind a shared mapping. */
enum bd_discard_method {
	BD_PROCESS_MADVISE = 0,
	BD_MADVISE = 1,
	BD_FALLOCATE = 2,
};
int bd_pidfd_self(void);
size_t bd_page_bytes(void);
/* Hands up to 1024 ranges to process_madvise() at once; returns how many it did whole. */
size_t bd_discard_vector(const struct bd_mapping *mapping, int pidfd, const double *ranges, size_t count);
/*
 * `ranges`: `count` pairs of offset and length in bytes, inside the mapping (the caller checked). Returns how
 * many were discarded from the front; when fewer than `count`, `error` is the errno of the next one. A range that
 * is not whole pages is EINVAL by every method (the kernel would round some up, and zero parts by others).
 * `fd` is the pidfd of this process for BD_PROCESS_MADVISE, the mapped file for BD_FALLOCATE.
 */
size_t bd_discard(const struct bd_mapping *mapping, int fd, const double *ranges, size_t count,
		  enum bd_discard_method method, int *error);

#endif
