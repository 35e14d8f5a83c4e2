/* Files in memory. */
#define _GNU_SOURCE
#include "native.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <unistd.h>

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

int bd_seal(int fd)
{
	int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;

	return fcntl(fd, F_ADD_SEALS, seals) < 0 ? -errno : 0;
}
