/* Event counters shared with VMMs, which may do anything to them at any time: nothing here may block for long. */
#define _GNU_SOURCE
#include "native.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* Completions that may wait before they are collected, all at once. */
#define AIO_EVENTS 64
/* For so long a write may block. */
#define TICK_NS (50 * 1000 * 1000)
/* Node, libuv and V8 use no real-time signal. */
#define TICK_SIGNAL (SIGRTMIN + 5)

int bd_eventfd(unsigned int initial)
{
	int fd = eventfd(initial, EFD_CLOEXEC | EFD_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

static void tick_later(struct bd_signaller *signaller)
{
	struct itimerspec once = { .it_value = { .tv_nsec = TICK_NS } };

	signaller->ticking = timer_settime(signaller->timer, 0, &once, NULL) == 0;
}

static int has_room(int fd)
{
	struct pollfd state = { .fd = fd, .events = POLLOUT };

	return poll(&state, 1, 0) == 1 && (state.revents & POLLOUT);
}

/*
 * write() blocks on a full counter unless O_NONBLOCK is set, which belongs to the open file: the other side can
 * clear it, and fill the counter, between any check of ours and the write. So a timer ticks while signals are sent. This
 * handler has a write that blocks end elsewhere: a counter of our own takes the place of the fd, the kernel begins the
 * write anew (SA_RESTART), and the write ends at once. From then on signals go by signal_by_aio().
 *
 * They do not from the start, since the kernel lets a process that has a context of asynchronous I/O end only after a
 * grace period of RCU (fs/aio.c, exit_aio): some 50 ms after SIGKILL, for which guests wait for the next daemon.
 */
static void on_tick(int number, siginfo_t *info, void *context)
{
	struct bd_signaller *signaller = info->si_value.sival_ptr;
	int before = errno;

	(void)number;
	(void)context;
	signaller->ticking = 0;
	if (signaller->fd >= 0) {
		/* A thread that has to wait for a processor in the middle of a write is not blocked. */
		if (!signaller->moved && !has_room(signaller->fd)) {
			signaller->moved = dup3(signaller->fd, signaller->slot, O_CLOEXEC) >= 0 &&
					   dup3(signaller->spare, signaller->fd, O_CLOEXEC) >= 0;
		}
		tick_later(signaller);
	}
	errno = before;
}

/*
 * A finished asynchronous request raises its eventfd inside the kernel, where nothing waits. The request is an empty read
 * of the eventfd itself, which fails (EINVAL) and counts as finished.
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
	long submitted;

	if (!has_room(fd))
		return 0;
	submitted = syscall(SYS_io_submit, aio, 1, requests);
	if (submitted < 0 && errno == EAGAIN) {
		while (syscall(SYS_io_getevents, aio, 0, AIO_EVENTS, finished, &at_once) == AIO_EVENTS)
			;
		submitted = syscall(SYS_io_submit, aio, 1, requests);
	}
	return submitted == 1;
}

/* A host without asynchronous I/O (seccomp, fs.aio-max-nr) has the timer alone. */
static void open_aio(struct bd_signaller *signaller)
{
	if (syscall(SYS_io_setup, AIO_EVENTS, &signaller->aio) < 0)
		signaller->aio = 0;
}

static void open_signaller(struct bd_signaller *signaller)
{
	struct sigaction action = { .sa_sigaction = on_tick, .sa_flags = SA_SIGINFO | SA_RESTART };
	struct sigevent event = {
		.sigev_notify = SIGEV_THREAD_ID,
		.sigev_signo = TICK_SIGNAL,
		.sigev_value = { .sival_ptr = signaller },
	};

	signaller->opened = 1;
	signaller->fd = -1;
	signaller->spare = bd_eventfd(0);
	signaller->slot = bd_eventfd(0);
	event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
	signaller->timed = signaller->spare >= 0 && signaller->slot >= 0 &&
			   sigaction(TICK_SIGNAL, &action, NULL) == 0 &&
			   timer_create(CLOCK_MONOTONIC, &event, &signaller->timer) == 0;
	if (!signaller->timed)
		open_aio(signaller);
}

static int signal_by_write(struct bd_signaller *signaller, int fd)
{
	uint64_t one = 1;
	ssize_t written;

	if (!signaller->ticking && signaller->timed)
		tick_later(signaller);
	signaller->fd = fd;
	written = write(fd, &one, sizeof(one));
	signaller->fd = -1;
	if (!signaller->moved)
		return written == (ssize_t)sizeof(one);
	dup3(signaller->slot, fd, O_CLOEXEC);
	dup3(signaller->spare, signaller->slot, O_CLOEXEC);
	signaller->moved = 0;
	open_aio(signaller);
	return signaller->aio != 0 && signal_by_aio(signaller->aio, fd);
}

int bd_eventfd_signal(struct bd_signaller *signaller, int fd)
{
	if (!signaller->opened)
		open_signaller(signaller);
	return signaller->aio != 0 ? signal_by_aio(signaller->aio, fd) : signal_by_write(signaller, fd);
}

void bd_signaller_close(struct bd_signaller *signaller)
{
	if (!signaller->opened)
		return;
	if (signaller->aio != 0)
		syscall(SYS_io_destroy, signaller->aio);
	if (signaller->timed)
		timer_delete(signaller->timer);
	if (signaller->spare >= 0)
		close(signaller->spare);
	if (signaller->slot >= 0)
		close(signaller->slot);
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
