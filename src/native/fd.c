/* What any file descriptor can do. */
#define _GNU_SOURCE
#include "native.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

int bd_close(int fd)
{
	/* Linux releases the number whatever close() says, so EINTR is not worth a second try. */
	return close(fd) == 0 || errno == EINTR ? 0 : -errno;
}

int bd_duplicate(int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	return copy < 0 ? -errno : copy;
}

int bd_set_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

int64_t bd_offset(int fd)
{
	off_t offset = lseek(fd, 0, SEEK_CUR);

	return offset < 0 ? -errno : offset;
}

int64_t bd_set_offset(int fd, off_t offset)
{
	offset = lseek(fd, offset, SEEK_SET);
	return offset < 0 ? -errno : offset;
}

int64_t bd_allocated(int fd)
{
	struct stat info;

	/* In units of 512 bytes, whatever the file system's own are (inode(7)). */
	return fstat(fd, &info) < 0 ? -errno : (int64_t)info.st_blocks * 512;
}

/* mm/memfd.c, memfd_get_seals: shmem and hugetlbfs have seals, also where none may be set; no file system is asked. */
int bd_is_memory(int fd)
{
	if (fcntl(fd, F_GET_SEALS) >= 0)
		return 1;
	return errno == EINVAL ? 0 : -errno;
}

int bd_punch(int fd, off_t offset, off_t length)
{
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length) < 0 ? -errno : 0;
}
