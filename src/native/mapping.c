/* Shared file mappings. */
#define _GNU_SOURCE
#include "native.h"

#include <errno.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

int bd_map(struct bd_mapping *mapping, int fd, off_t offset, size_t length)
{
	struct statfs filesystem;
	struct stat file;
	void *address;
	int error;

	if (fstat(fd, &file) < 0 || fstatfs(fd, &filesystem) < 0)
		return -errno;
	if (offset > file.st_size || length > (size_t)(file.st_size - offset))
		return -ENXIO;
	/* No reservation: what the guest gave up must not be promised again to its huge pages' pool. */
	address = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, offset);
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
	error = bd_guard(mapping, filesystem.f_type == HUGETLBFS_MAGIC ? (size_t)filesystem.f_bsize : bd_page_bytes());
	if (error < 0)
		bd_unmap(mapping);
	return error;
}

int bd_unmap(struct bd_mapping *mapping)
{
	void *address = mapping->address;

	bd_unguard(mapping);
	mapping->address = NULL;
	return munmap(address, mapping->length) < 0 ? -errno : 0;
}
