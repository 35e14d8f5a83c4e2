/* Shared file mappings and the memory files behind them. */
#define _GNU_SOURCE
#include "native.h"

#include <errno.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <unistd.h>

int bd_map(struct bd_mapping *mapping, int fd, off_t offset, size_t length)
{
	/* No reservation: what the guest gave up must not be promised again to its huge pages' pool. */
	void *address = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, offset);
	int error;

	if (address == MAP_FAILED)
		return -errno;
	if (madvise(address, length, MADV_DONTDUMP) < 0 || madvise(address, length, MADV_DONTFORK) < 0) {
		error = errno;
		munmap(address, length);
		return -error;
	}
	mapping->address = address;
	mapping->length = length;
	mapping->file_offset = offset;
	return 0;
}

int bd_unmap(struct bd_mapping *mapping)
{
	void *address = mapping->address;

	mapping->address = NULL;
	return munmap(address, mapping->length) < 0 ? -errno : 0;
}

int bd_memfd(const char *name, off_t size, int huge_page_shift)
{
	unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd, error;

	if (huge_page_shift > 0)
		flags |= MFD_HUGETLB | ((unsigned int)huge_page_shift << MFD_HUGE_SHIFT);
	fd = memfd_create(name, flags);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, size) < 0) {
		error = errno;
		close(fd);
		return -error;
	}
	return fd;
}
