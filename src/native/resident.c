/*
 * What a file holds of its pages, found out without making it hold more: a look through a mapping would fill holes. And
 * whether pages read as zeros, as they would if they were gone.
 */
#define _GNU_SOURCE
#include "native.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Linux 6.5; the same number on each architecture that is served. Headers may be older than the kernel. */
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

struct cachestat_range {
	uint64_t offset, length;
};
struct cachestat_result {
	uint64_t cache, dirty, writeback, evicted, recently_evicted;
};

#define VECTOR_PAGES 4096
#define READ_BYTES 65536

/* Pages of shmem that are in swap are "evicted": they are held all the same. So are those that fallocate() made. */
static int by_cachestat(int fd, off_t offset, size_t length, double *bytes)
{
	struct cachestat_range range = { (uint64_t)offset, length };
	struct cachestat_result found = { 0 };

	if (syscall(SYS_cachestat, fd, &range, &found, 0) < 0)
		return -errno;
	*bytes = (double)(found.cache + found.evicted) * (double)bd_page_bytes();
	return 0;
}

/* Takes time for each page, also of a hole; neither swap nor what fallocate() made and nobody touched is seen. */
static int by_mincore(uint8_t *address, size_t length, double *bytes)
{
	unsigned char vector[VECTOR_PAGES];
	size_t page = bd_page_bytes(), at, n, present = 0;

	for (at = 0; at < length; at += VECTOR_PAGES * page) {
		size_t part = length - at < VECTOR_PAGES * page ? length - at : VECTOR_PAGES * page;

		if (mincore(address + at, part, vector) < 0)
			return -errno;
		for (n = 0; n < part / page; n++)
			present += vector[n] & 1;
	}
	*bytes = (double)(present * page);
	return 0;
}

int bd_resident(const struct bd_mapping *mapping, int fd, const double *ranges, size_t count,
		enum bd_resident_method method, double *bytes)
{
	size_t n;
	int error = 0;

	for (n = 0; n < count && error == 0; n++) {
		size_t offset = (size_t)ranges[2 * n], length = (size_t)ranges[2 * n + 1];

		bytes[n] = 0;
		/* A length of 0 would stand for all of the file. */
		if (length == 0)
			continue;
		error = method == BD_CACHESTAT ?
				by_cachestat(fd, mapping->file_offset + (off_t)offset, length, bytes + n) :
				by_mincore(mapping->address + offset, length, bytes + n);
	}
	return error;
}

static int is_zeros(const unsigned char *bytes, size_t length)
{
	const uint64_t *words = (const uint64_t *)bytes;
	size_t n;
	uint64_t any = 0;

	for (n = 0; n < length / sizeof(*words); n++)
		any |= words[n];
	return any == 0;
}

int bd_reads_as_zeros(const struct bd_mapping *mapping, int fd, size_t offset, size_t length)
{
	/* Aligned for words. A read of the file copies zeros for a hole and leaves it one. */
	uint64_t buffer[READ_BYTES / sizeof(uint64_t)];

	while (length > 0) {
		size_t part = length < READ_BYTES ? length : READ_BYTES;
		ssize_t got = pread(fd, buffer, part, mapping->file_offset + (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		/* The file was cut short. */
		if ((size_t)got < part)
			return -ENXIO;
		if (!is_zeros((const unsigned char *)buffer, part))
			return 0;
		offset += part;
		length -= part;
	}
	return 1;
}
