/*
 * The contract between the glue (binding.c) and the system calls. Every function returns a value >= 0 or a
 * negative errno; none keeps state. File descriptors that they make are close-on-exec and non-blocking.
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

/* mapping.c: shared file mappings. */
struct bd_mapping {
	uint8_t *address;
	size_t length;
	off_t file_offset;
};
int bd_map(struct bd_mapping *mapping, int fd, off_t offset, size_t length);
int bd_unmap(struct bd_mapping *mapping);
int bd_memfd(const char *name, off_t size, int huge_page_shift);

/* eventfd.c */
int bd_eventfd(unsigned int initial);
/* Never blocks: 1 when the counter was raised, 0 when it is full or the fd takes nothing. */
int bd_eventfd_signal(int fd);
/* Never blocks: the counter, or 0 when there was nothing. */
int64_t bd_eventfd_drain(int fd);

/* discard.c: removing pages from the file behind a shared mapping. */
enum bd_discard_method {
	BD_PROCESS_MADVISE = 0,
	BD_MADVISE = 1,
	BD_FALLOCATE = 2,
};
int bd_pidfd_self(void);
/* Hands up to 1024 ranges to process_madvise() at once; returns how many it did whole. */
size_t bd_discard_vector(const struct bd_mapping *mapping, int pidfd, const double *ranges, size_t count);
/*
 * `ranges`: `count` pairs of offset and length in bytes, inside the mapping (the caller checked). Returns how
 * many were discarded from the front; when fewer than `count`, `error` is the errno of the next one.
 * `fd` is the pidfd of this process for BD_PROCESS_MADVISE, the mapped file for BD_FALLOCATE.
 */
size_t bd_discard(const struct bd_mapping *mapping, int fd, const double *ranges, size_t count,
		  enum bd_discard_method method, int *error);

#endif
