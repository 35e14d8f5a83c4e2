/* Event counters shared with VMMs, which may do anything to them at any time: nothing here may block. */
#define _GNU_SOURCE
#include "native.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

int bd_eventfd(unsigned int initial)
{
	int fd = eventfd(initial, EFD_CLOEXEC | EFD_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

int bd_eventfd_signal(int fd)
{
	struct pollfd state = { .fd = fd, .events = POLLOUT };
	uint64_t one = 1;

	/* O_NONBLOCK belongs to the open file, which the other side shares and may change: ask first. */
	if (poll(&state, 1, 0) != 1 || !(state.revents & POLLOUT))
		return 0;
	return write(fd, &one, sizeof(one)) == (ssize_t)sizeof(one);
}

int64_t bd_eventfd_drain(int fd)
{
	uint64_t value = 0;
	struct iovec part = { .iov_base = &value, .iov_len = sizeof(value) };

	if (preadv2(fd, &part, 1, -1, RWF_NOWAIT) == (ssize_t)sizeof(value))
		return value > INT64_MAX ? INT64_MAX : (int64_t)value;
	return 0;
}
