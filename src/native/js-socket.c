/*
 * Sockets, as JavaScript sees them.
 */
#include "glue.h"

NATIVE(listen)
{
	char path[4096];
	int64_t mode;
	int error;

	BEGIN;
	error = glue_text(&call, 0, path, sizeof(path));
	mode = glue_number(&call, 1, 0777);
	return glue_result(&call, call.bad || error ? error : bd_listen(path, (mode_t)mode));
}

NATIVE(connect)
{
	char path[4096];
	int error;

	BEGIN;
	error = glue_text(&call, 0, path, sizeof(path));
	return glue_result(&call, call.bad || error ? error : bd_connect(path));
}

NATIVE(datagramConnect)
{
	char path[4096];
	int error;

	BEGIN;
	error = glue_text(&call, 0, path, sizeof(path));
	return glue_result(&call, call.bad || error ? error : bd_datagram_connect(path));
}

NATIVE(datagramBind)
{
	char path[4096];
	int error;

	BEGIN;
	error = glue_text(&call, 0, path, sizeof(path));
	return glue_result(&call, call.bad || error ? error : bd_datagram_bind(path));
}

/* boundPath(fd, bytes, offset, length): the length of the path, which is put into bytes with a NUL behind it. */
NATIVE(boundPath)
{
	size_t length;

	BEGIN;
	int fd = glue_fd(&call, 0);
	uint8_t *into = glue_bytes(&call, 1, &length);

	return glue_result(&call, call.bad ? 0 : bd_bound_path(fd, (char *)into, length));
}

NATIVE(accept)
{
	BEGIN;
	int fd = glue_fd(&call, 0);

	return glue_result(&call, call.bad ? 0 : bd_accept(fd));
}

/* acceptAndTell(listener, told, bytes, offset, length) */
NATIVE(acceptAndTell)
{
	size_t length;

	BEGIN;
	int listener = glue_fd(&call, 0);
	int told = glue_fd(&call, 1);
	uint8_t *text = glue_bytes(&call, 2, &length);

	call.bad |= length == 0;
	return glue_result(&call, call.bad ? 0 : bd_accept_and_tell(listener, told, text, length));
}

NATIVE(socketPair)
{
	size_t length;

	BEGIN;
	int32_t *fds = glue_array(&call, 0, napi_int32_array, &length);

	call.bad |= length < 2;
	return glue_result(&call, call.bad ? 0 : bd_socketpair(fds));
}

NATIVE(isListening)
{
	BEGIN;
	int fd = glue_fd(&call, 0);

	return glue_result(&call, call.bad ? 0 : bd_is_listening(fd));
}

NATIVE(peerPid)
{
	BEGIN;
	int fd = glue_fd(&call, 0);

	return glue_result(&call, call.bad ? 0 : bd_peer_pid(fd));
}

/* receive(fd, bytes, offset, length, fds): fds[0] becomes their number, they follow. */
NATIVE(receive)
{
	size_t length, room;

	BEGIN;
	int fd = glue_fd(&call, 0);
	uint8_t *into = glue_bytes(&call, 1, &length);
	int32_t *fds = glue_array(&call, 4, napi_int32_array, &room);

	/* Reading nothing would look like the end of the stream. */
	call.bad |= room < BD_MAX_FDS + 1 || length == 0;
	return glue_result(&call, call.bad ? 0 : bd_receive(fd, into, length, fds + 1, fds));
}

/* send(fd, bytes, offset, length, fds) */
NATIVE(send)
{
	size_t length, count;

	BEGIN;
	int fd = glue_fd(&call, 0);
	uint8_t *from = glue_bytes(&call, 1, &length);
	int32_t *fds = glue_array(&call, 4, napi_int32_array, &count);

	/* The kernel drops fds that come with no byte, without a word. */
	call.bad |= length == 0;
	return glue_result(&call, call.bad ? 0 : bd_send(fd, from, length, fds, count));
}

/* sendDescriptor(fd, passed): a datagram of no bytes */
NATIVE(sendDescriptor)
{
	BEGIN;
	int fd = glue_fd(&call, 0);
	int32_t passed = glue_fd(&call, 1);

	return glue_result(&call, call.bad ? 0 : bd_send(fd, "", 0, &passed, 1));
}

/* peek(fd, bytes, offset, length, fds): as receive(), of the bytes behind those that were looked at. */
NATIVE(peek)
{
	size_t length, room;

	BEGIN;
	int fd = glue_fd(&call, 0);
	uint8_t *into = glue_bytes(&call, 1, &length);
	int32_t *fds = glue_array(&call, 4, napi_int32_array, &room);

	call.bad |= room < BD_MAX_FDS + 1 || length == 0;
	return glue_result(&call, call.bad ? 0 : bd_peek(fd, into, length, fds + 1, fds));
}

NATIVE(consume)
{
	BEGIN;
	int fd = glue_fd(&call, 0);
	int64_t length = glue_number(&call, 1, INT32_MAX);

	return glue_result(&call, call.bad ? 0 : bd_consume(fd, (size_t)length));
}

/* peekOffset(fd): what was looked at and not taken, or a negative number. */
NATIVE(peekOffset)
{
	BEGIN;
	int fd = glue_fd(&call, 0);

	return glue_result(&call, call.bad ? 0 : bd_peek_offset(fd));
}

NATIVE(setPeekOffset)
{
	BEGIN;
	int fd = glue_fd(&call, 0);
	int64_t offset = glue_number(&call, 1, INT32_MAX);

	return glue_result(&call, call.bad ? 0 : bd_set_peek_offset(fd, (int)offset));
}

NATIVE(hungUp)
{
	BEGIN;
	int fd = glue_fd(&call, 0);

	return glue_result(&call, call.bad ? 0 : bd_hung_up(fd));
}

NATIVE(sendFile)
{
	BEGIN;
	int fd = glue_fd(&call, 0);
	int file = glue_fd(&call, 1);
	int64_t length = glue_number(&call, 2, INT32_MAX);

	return glue_result(&call, call.bad ? 0 : bd_send_file(fd, file, (size_t)length));
}

NATIVE(unread)
{
	BEGIN;
	int fd = glue_fd(&call, 0);

	return glue_result(&call, call.bad ? 0 : bd_unread(fd));
}

napi_status glue_export_socket(napi_env env, napi_value exports)
{
	static const napi_property_descriptor functions[] = {
		EXPORT(listen), EXPORT(connect), EXPORT(datagramConnect), EXPORT(datagramBind),
		EXPORT(boundPath), EXPORT(accept), EXPORT(acceptAndTell), EXPORT(socketPair),
		EXPORT(isListening), EXPORT(peerPid), EXPORT(receive), EXPORT(send), EXPORT(sendDescriptor),
		EXPORT(peek), EXPORT(consume), EXPORT(peekOffset), EXPORT(setPeekOffset), EXPORT(hungUp), EXPORT(sendFile),
		EXPORT(unread),
	};

	return napi_define_properties(env, exports, sizeof(functions) / sizeof(functions[0]), functions);
}
