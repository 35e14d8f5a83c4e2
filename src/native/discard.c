/*
 * Removing pages from the file behind a shared mapping. MADV_DONTNEED would only drop our own view of them; it is
 * MADV_REMOVE (or a punched hole, which is the same to the file) that gives memory back. Of hugetlbfs, the way back, too.
 */
#define _GNU_SOURCE
#include "native.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* UIO_MAXIOV: most ranges of one vectored call. */
#define MAX_VECTOR 1024
/* A filesystem of the other side's making could say EAGAIN for ever. */
#define MAX_TRIES 100

int bd_pidfd_self(void)
{
	int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);

	return fd < 0 ? -errno : fd;
}

size_t bd_page_bytes(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

static int is_whole_pages(const double *range, size_t page)
{
	return (((size_t)range[0] | (size_t)range[1]) & (page - 1)) == 0;
}

/* The reservation belongs to the file: it outlives the mapping that made it. */
static int reserve(int fd, off_t offset, size_t length)
{
	void *address = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, offset);

	return address == MAP_FAILED ? -1 : munmap(address, length);
}

static int try_one(const struct bd_mapping *mapping, int fd, size_t offset, size_t length, enum bd_discard_method method)
{
	off_t start = mapping->file_offset + (off_t)offset;

	switch (method) {
	case BD_FALLOCATE:
		return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, (off_t)length);
	case BD_ALLOCATE:
		return fallocate(fd, FALLOC_FL_KEEP_SIZE, start, (off_t)length);
	case BD_RESERVE:
		return reserve(fd, start, length);
	case BD_PROCESS_MADVISE:
	case BD_MADVISE:
	default:
		return madvise(mapping->address + offset, length, MADV_REMOVE);
	}
}

static int discard_one(const struct bd_mapping *mapping, int fd, const double *range, enum bd_discard_method method)
{
	size_t offset = (size_t)range[0], length = (size_t)range[1];
	int result, tries = 0;

	if (!is_whole_pages(range, bd_page_bytes()))
		return EINVAL;
	do {
		result = try_one(mapping, fd, offset, length, method);
	} while (result < 0 && (errno == EINTR || errno == EAGAIN) && ++tries < MAX_TRIES);
	return result < 0 ? errno : 0;
}

size_t bd_discard_vector(const struct bd_mapping *mapping, int pidfd, const double *ranges, size_t count)
{
	struct iovec vector[MAX_VECTOR];
	size_t page = bd_page_bytes(), n, done = 0;
	ssize_t bytes;

	if (count > MAX_VECTOR)
		count = MAX_VECTOR;
	for (n = 0; n < count && is_whole_pages(ranges + 2 * n, page); n++) {
		vector[n].iov_base = mapping->address + (size_t)ranges[2 * n];
		vector[n].iov_len = (size_t)ranges[2 * n + 1];
	}
	bytes = syscall(SYS_process_madvise, pidfd, vector, n, MADV_REMOVE, 0);
	/* Partial success comes as the bytes of the ranges before the one that failed. */
	while (done < n && bytes >= (ssize_t)vector[done].iov_len)
		bytes -= (ssize_t)vector[done++].iov_len;
	return done;
}

size_t bd_discard(const struct bd_mapping *mapping, int fd, const double *ranges, size_t count,
		  enum bd_discard_method method, int *error)
{
	size_t done = 0;

	*error = 0;
	while (done < count) {
		if (method == BD_PROCESS_MADVISE) {
			size_t rest = count - done;
			size_t got = bd_discard_vector(mapping, fd, ranges + 2 * done, rest);

			done += got;
			if (got == (rest < MAX_VECTOR ? rest : MAX_VECTOR))
				continue;
		}
		/* After a short vector this is the range that stopped it: by itself it says why, or succeeds. */
		*error = discard_one(mapping, fd, ranges + 2 * done, method);
		if (*error != 0)
			break;
		done++;
	}
	return done;
}
