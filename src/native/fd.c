/* What any file descriptor can do. */
#define _GNU_SOURCE
#include "native.h"

#include <errno.h>
#include <fcntl.h>
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
