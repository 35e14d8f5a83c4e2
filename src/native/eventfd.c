/* Event counters shared with VMMs, which may do anything to them at any time: nothing here may block. */
#define _GNU_SOURCE
#include "native.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Completions that may wait before they are collected, all at once. */
#define AIO_EVENTS 64

int bd_eventfd(unsigned int initial)
{
	int fd = eventfd(initial, EFD_CLOEXEC | EFD_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

/*
 * write() blocks on a full counter unless O_NONBLOCK is set, which belongs to the open file: the other side can
 * clear it, and fill the counter, between any check of ours and the write. A finished asynchronous request raises
 * its eventfd inside the kernel, where nothing waits. The request is an empty read of the eventfd itself, which
 * fails (EINVAL) and counts as finished; an fd that is no eventfd is refused.
 */
static int signal_by_aio(unsigned long aio, int fd)
{
	struct iocb request = {
		.aio_lio_opcode = IOCB_CMD_PREAD,
		.aio_fildes = (uint32_t)fd,
		.aio_flags = IOCB_FLAG_RESFD,
		.aio_resfd = (uint32_t)fd,
	};
	struct iocb *requests[] = { &request };
	struct io_event finished[AIO_EVENTS];
	struct timespec at_once = { 0 };
	long submitted = syscall(SYS_io_submit, aio, 1, requests);

	if (submitted < 0 && errno == EAGAIN) {
		while (syscall(SYS_io_getevents, aio, 0, AIO_EVENTS, finished, &at_once) == AIO_EVENTS)
			;
		submitted = syscall(SYS_io_submit, aio, 1, requests);
	}
	return submitted == 1;
}

int bd_eventfd_signal(struct bd_signaller *signaller, int fd)
{
	struct pollfd state = { .fd = fd, .events = POLLOUT };
	uint64_t one = 1;

	if (!signaller->opened) {
		signaller->opened = 1;
		if (syscall(SYS_io_setup, AIO_EVENTS, &signaller->aio) < 0)
			signaller->aio = 0;
	}
	if (poll(&state, 1, 0) != 1 || !(state.revents & POLLOUT))
		return 0;
	if (signaller->aio != 0)
		return signal_by_aio(signaller->aio, fd);
	/* A host without asynchronous I/O (seccomp, fs.aio-max-nr) has only the check above. */
	return write(fd, &one, sizeof(one)) == (ssize_t)sizeof(one);
}

void bd_signaller_close(struct bd_signaller *signaller)
{
	if (signaller->aio != 0)
		syscall(SYS_io_destroy, signaller->aio);
}

int64_t bd_eventfd_drain(int fd)
{
	uint64_t value = 0;
	struct iovec part = { .iov_base = &value, .iov_len = sizeof(value) };

	/* For this one call, whatever the file's own flags are. */
	if (preadv2(fd, &part, 1, -1, RWF_NOWAIT) == (ssize_t)sizeof(value))
		return value > INT64_MAX ? INT64_MAX : (int64_t)value;
	return 0;
}
