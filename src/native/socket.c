/* Unix stream sockets that carry file descriptors. */
#define _GNU_SOURCE
#include "native.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int fill_address(struct sockaddr_un *address, const char *path)
{
	size_t length = strlen(path);

	if (length == 0)
		return -EINVAL;
	if (length >= sizeof(address->sun_path))
		return -ENAMETOOLONG;
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	memcpy(address->sun_path, path, length + 1);
	return 0;
}

static int stream_socket(int flags)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

	return fd < 0 ? -errno : fd;
}

static int close_with(int fd, int error)
{
	close(fd);
	return -error;
}

/*
 * 0: a socket at this path was left behind by a process that no longer listens on it. Else EADDRINUSE, or EALREADY where this
 * process may not find out.
 */
static int in_the_way(const struct sockaddr_un *address)
{
	struct stat info;
	int fd, error = EADDRINUSE;

	if (lstat(address->sun_path, &info) < 0 || !S_ISSOCK(info.st_mode))
		return EADDRINUSE;
	fd = stream_socket(SOCK_NONBLOCK);
	if (fd < 0)
		return EADDRINUSE;
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0)
		error = errno == ECONNREFUSED ? 0 : errno == EACCES ? EALREADY : EADDRINUSE;
	close(fd);
	return error;
}

/* Beyond are people (login.defs(5), SYS_UID_MAX), who may not command what root runs. */
#define LAST_SYSTEM_UID 999

/*
 * A socket that root makes in the folder of a service's user is that user's: the service, which may replace it, has to be able to
 * ask whether somebody listens there, once it is left behind.
 */
static void give_to_folder(const char *path)
{
	char folder[sizeof(((struct sockaddr_un *)0)->sun_path)] = ".";
	const char *slash = strrchr(path, '/');
	struct stat info;

	if (geteuid() != 0)
		return;
	if (slash != NULL) {
		memcpy(folder, path, (size_t)(slash - path) + 1);
		folder[slash - path + 1] = '\0';
	}
	/* Where it cannot be, the socket stays root's, and works all the same. */
	if (stat(folder, &info) == 0 && info.st_uid != 0 && info.st_uid <= LAST_SYSTEM_UID &&
	    lchown(path, info.st_uid, info.st_gid) < 0)
		return;
}

int bd_listen(const char *path, mode_t mode)
{
	struct sockaddr_un address;
	int error = fill_address(&address, path);
	int fd;

	if (error < 0)
		return error;
	fd = stream_socket(SOCK_NONBLOCK);
	if (fd < 0)
		return fd;
	/* The mode of the socket's inode becomes that of the path: set before bind, it is never wider. */
	if (fchmod(fd, mode) < 0)
		return close_with(fd, errno);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		if (errno != EADDRINUSE)
			return close_with(fd, errno);
		error = in_the_way(&address);
		if (error != 0)
			return close_with(fd, error);
		if (unlink(path) < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
			return close_with(fd, errno);
	}
	give_to_folder(path);
	/* The umask had its say in bind(). */
	if (chmod(path, mode) < 0 || listen(fd, SOMAXCONN) < 0) {
		error = errno;
		unlink(path);
		return close_with(fd, error);
	}
	return fd;
}

int bd_connect(const char *path)
{
	struct sockaddr_un address;
	int error = fill_address(&address, path);
	int fd;

	if (error < 0)
		return error;
	fd = stream_socket(SOCK_NONBLOCK);
	if (fd < 0)
		return fd;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return close_with(fd, errno);
	return fd;
}

int bd_accept(int listener)
{
	int fd;

	do {
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	} while (fd < 0 && errno == EINTR);
	return fd < 0 ? -errno : fd;
}

int bd_accept_and_tell(int listener, int told, const void *text, size_t length)
{
	struct pollfd room = { .fd = told, .events = POLLOUT };
	int fd;

	/* Where nobody can be told now, the connection is safe in the listener. */
	if (poll(&room, 1, 0) < 0 || room.revents != POLLOUT)
		return -EBUSY;
	fd = bd_accept(listener);
	if (fd >= 0 && bd_send(told, text, length, &fd, 1) < 0)
		return close_with(fd, EBUSY);
	return fd;
}

int bd_socketpair(int fds[2])
{
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0 ? -errno : 0;
}

int bd_bound_path(int fd, char *path, size_t size)
{
	struct sockaddr_un address;
	socklen_t length = sizeof(address);
	size_t bytes;

	if (getsockname(fd, (struct sockaddr *)&address, &length) < 0)
		return -errno;
	bytes = length <= offsetof(struct sockaddr_un, sun_path) ? 0 : length - offsetof(struct sockaddr_un, sun_path);
	bytes = strnlen(address.sun_path, bytes);
	if (bytes >= size)
		return -ENAMETOOLONG;
	memcpy(path, address.sun_path, bytes);
	path[bytes] = 0;
	return (int)bytes;
}

/* A leading @ stands for the NUL of an abstract name, as service managers write it. */
static int datagram_socket(const char *path, struct sockaddr_un *address, socklen_t *length)
{
	int error = fill_address(address, path);
	int fd;

	if (error < 0)
		return error;
	*length = sizeof(*address);
	if (path[0] == '@') {
		address->sun_path[0] = 0;
		*length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
	}
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return fd < 0 ? -errno : fd;
}

int bd_datagram_connect(const char *path)
{
	struct sockaddr_un address;
	socklen_t length;
	int fd = datagram_socket(path, &address, &length);

	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, length) < 0)
		return close_with(fd, errno);
	return fd;
}

int bd_datagram_bind(const char *path)
{
	struct sockaddr_un address;
	socklen_t length;
	int fd = datagram_socket(path, &address, &length);

	if (fd >= 0 && bind(fd, (struct sockaddr *)&address, length) < 0)
		return close_with(fd, errno);
	return fd;
}

int bd_is_listening(int fd)
{
	int listening = 0;
	socklen_t length = sizeof(listening);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) < 0 ? -errno : listening;
}

int bd_peer_pid(int fd)
{
	struct ucred peer;
	socklen_t length = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
		return -errno;
	return peer.pid;
}

int bd_pending_error(int fd)
{
	int error = 0;
	socklen_t length = sizeof(error);

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0 || error == 0 ? EIO : error;
}

static void take_fds(struct msghdr *message, int32_t *fds, int32_t *count)
{
	struct cmsghdr *header;

	for (header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
		size_t bytes = header->cmsg_len - CMSG_LEN(0);

		if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
			continue;
		memcpy(fds + *count, CMSG_DATA(header), bytes);
		*count += (int32_t)(bytes / sizeof(int));
	}
}

static ssize_t receive(int fd, void *into, size_t length, int32_t *fds, int32_t *count, int flags)
{
	union {
		char bytes[CMSG_SPACE(BD_MAX_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec part = { .iov_base = into, .iov_len = length };
	struct msghdr message = {
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	ssize_t got;

	*count = 0;
	do {
		got = recvmsg(fd, &message, flags | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	take_fds(&message, fds, count);
	if (message.msg_flags & MSG_CTRUNC) {
		/* There is room for as many as can be sent: they could not be opened here (findings/passed-files-at-the-limit.sh). */
		int spare = fcntl(fd, F_DUPFD_CLOEXEC, 0);
		int error = spare < 0 ? errno : EMSGSIZE;

		if (spare >= 0)
			close(spare);
		while (*count > 0)
			close(fds[--*count]);
		return -error;
	}
	return got;
}

ssize_t bd_receive(int fd, void *into, size_t length, int32_t *fds, int32_t *count)
{
	return receive(fd, into, length, fds, count, 0);
}

ssize_t bd_send(int fd, const void *from, size_t length, const int32_t *fds, size_t count)
{
	union {
		char bytes[CMSG_SPACE(BD_MAX_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec part = { .iov_base = (void *)from, .iov_len = length };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	ssize_t sent;

	if (count > BD_MAX_FDS)
		return -EINVAL;
	if (count > 0) {
		struct cmsghdr *header = &control.align;

		memset(&control, 0, sizeof(control));
		message.msg_control = control.bytes;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(header), fds, count * sizeof(int));
	}
	do {
		sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : sent;
}

int bd_set_peek_offset(int fd, int offset)
{
	return setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof(offset)) < 0 ? -errno : 0;
}

ssize_t bd_peek(int fd, void *into, size_t length, int32_t *fds, int32_t *count)
{
	return receive(fd, into, length, fds, count, MSG_PEEK);
}

int bd_consume(int fd, size_t length)
{
	char scratch[4096];
	int error = 0;

	while (error == 0 && length > 0) {
		ssize_t got = recv(fd, scratch, length < sizeof(scratch) ? length : sizeof(scratch), MSG_DONTWAIT);

		if (got > 0)
			length -= (size_t)got;
		else if (got == 0)
			error = -EPIPE;
		else if (errno != EINTR)
			error = -errno;
	}
	return error;
}

int bd_peek_offset(int fd)
{
	int offset = -1;
	socklen_t length = sizeof(offset);

	if (getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &offset, &length) < 0)
		return -errno;
	return offset;
}

int bd_hung_up(int fd)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLRDHUP };

	return poll(&poll_fd, 1, 0) < 0 ? -errno : (poll_fd.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

ssize_t bd_send_file(int fd, int file, size_t length)
{
	ssize_t sent;

	/* Without MSG_NOSIGNAL: Node ignores SIGPIPE. */
	do {
		sent = sendfile(fd, file, NULL, length);
	} while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : sent;
}

int bd_unread(int fd)
{
	int bytes = 0;

	return ioctl(fd, SIOCOUTQ, &bytes) < 0 ? -errno : bytes;
}
