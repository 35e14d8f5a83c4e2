/*
 * Glue between JavaScript and native.h, and nothing else. Results are passed on as numbers, negative ones being
 * -errno; src/os turns those into errors. Arguments are checked here, since a wrong one must not end the process.
 */
#include "glue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void glue_begin(struct call *call, napi_env env, napi_callback_info info)
{
	memset(call, 0, sizeof(*call));
	call->env = env;
	call->count = MAX_ARGUMENTS;
	if (napi_get_cb_info(env, info, &call->count, call->values, NULL, NULL) != napi_ok)
		call->bad = 1;
}

int64_t glue_number(struct call *call, size_t index, int64_t most)
{
	double value = -1;

	if (napi_get_value_double(call->env, call->values[index], &value) != napi_ok || !(value >= 0) ||
	    value > (double)most || value != (double)(int64_t)value) {
		call->bad = 1;
		return 0;
	}
	return (int64_t)value;
}

int glue_fd(struct call *call, size_t index)
{
	return (int)glue_number(call, index, INT32_MAX);
}

void *glue_handle(struct call *call, size_t index, uint32_t kind)
{
	void *data = NULL;

	/* Cheaper than a type tag, and enough: only the handles of this addon reach it, and all begin like this. */
	if (napi_get_value_external(call->env, call->values[index], &data) != napi_ok ||
	    ((struct handle *)data)->kind != kind) {
		call->bad = 1;
		return NULL;
	}
	return data;
}

napi_value glue_result(struct call *call, int64_t value)
{
	napi_value result = NULL;

	if (call->bad) {
		napi_throw_type_error(call->env, "ERR_INVALID_ARG_VALUE", "bad argument for the native helper");
		return NULL;
	}
	napi_create_int64(call->env, value, &result);
	return result;
}

void *glue_array(struct call *call, size_t index, napi_typedarray_type wanted, size_t *length)
{
	napi_typedarray_type type;
	void *data = NULL;

	*length = 0;
	if (napi_get_typedarray_info(call->env, call->values[index], &type, length, &data, NULL, NULL) != napi_ok ||
	    type != wanted)
		call->bad = 1;
	return data;
}

/* Part of a Uint8Array: the array, an offset and a length in consecutive arguments. */
static uint8_t *bytes_argument(struct call *call, size_t index, size_t *length)
{
	size_t whole;
	uint8_t *data = glue_array(call, index, napi_uint8_array, &whole);
	uint64_t offset = (uint64_t)glue_number(call, index + 1, MAX_SAFE_INTEGER);

	*length = (size_t)glue_number(call, index + 2, MAX_SAFE_INTEGER);
	if (call->bad || offset > whole || *length > whole - offset) {
		call->bad = 1;
		return NULL;
	}
	return data + offset;
}

static int text_argument(struct call *call, size_t index, char *text, size_t size)
{
	size_t length = 0;

	if (napi_get_value_string_utf8(call->env, call->values[index], NULL, 0, &length) != napi_ok) {
		call->bad = 1;
		return 0;
	}
	if (length >= size)
		return -ENAMETOOLONG;
	napi_get_value_string_utf8(call->env, call->values[index], text, size, &length);
	/* A NUL inside would silently name something else. */
	return strlen(text) == length ? 0 : -EINVAL;
}

void glue_call_back(napi_env env, napi_async_context context, napi_ref callback, size_t count,
		    const double *numbers)
{
	napi_handle_scope scope;
	napi_value receiver, function, error = NULL, values[2];
	size_t n;

	if (napi_open_handle_scope(env, &scope) != napi_ok)
		return;
	for (n = 0; n < count; n++)
		if (napi_create_double(env, numbers[n], &values[n]) != napi_ok)
			break;
	if (n == count && napi_get_global(env, &receiver) == napi_ok &&
	    napi_get_reference_value(env, callback, &function) == napi_ok &&
	    napi_make_callback(env, context, receiver, function, count, values, NULL) == napi_pending_exception &&
	    napi_get_and_clear_last_exception(env, &error) == napi_ok && error != NULL)
		napi_fatal_exception(env, error);
	napi_close_handle_scope(env, scope);
}

/* --- sockets ------------------------------------------------------------------------------------------------ */

NATIVE(listen)
{
	char path[4096];
	int64_t mode;
	int error;

	BEGIN;
	error = text_argument(&call, 0, path, sizeof(path));
	mode = glue_number(&call, 1, 0777);
	return glue_result(&call, call.bad || error ? error : bd_listen(path, (mode_t)mode));
}

NATIVE(connect)
{
	char path[4096];
	int error;

	BEGIN;
	error = text_argument(&call, 0, path, sizeof(path));
	return glue_result(&call, call.bad || error ? error : bd_connect(path));
}

NATIVE(datagramConnect)
{
	char path[4096];
	int error;

	BEGIN;
	error = text_argument(&call, 0, path, sizeof(path));
	return glue_result(&call, call.bad || error ? error : bd_datagram_connect(path));
}

NATIVE(datagramBind)
{
	char path[4096];
	int error;

	BEGIN;
	error = text_argument(&call, 0, path, sizeof(path));
	return glue_result(&call, call.bad || error ? error : bd_datagram_bind(path));
}

/* boundPath(fd, bytes, offset, length): the length of the path, which is put into bytes with a NUL behind it. */
NATIVE(boundPath)
{
	size_t length;

	BEGIN;
	int fd = glue_fd(&call, 0);
	uint8_t *into = bytes_argument(&call, 1, &length);

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
	uint8_t *text = bytes_argument(&call, 2, &length);

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

NATIVE(peer)
{
	size_t length;

	BEGIN;
	int fd = glue_fd(&call, 0);
	int32_t *into = glue_array(&call, 1, napi_int32_array, &length);

	call.bad |= length < 3;
	return glue_result(&call, call.bad ? 0 : bd_peer(fd, into));
}

/* receive(fd, bytes, offset, length, fds): fds[0] becomes their number, they follow. */
NATIVE(receive)
{
	size_t length, room;

	BEGIN;
	int fd = glue_fd(&call, 0);
	uint8_t *into = bytes_argument(&call, 1, &length);
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
	uint8_t *from = bytes_argument(&call, 1, &length);
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

/* peek(fd, bytes, at, length, fds): as receive(), from the `at`th byte in the socket to the `at`th of the array. */
NATIVE(peek)
{
	size_t length, room;

	BEGIN;
	int fd = glue_fd(&call, 0);
	uint8_t *into = bytes_argument(&call, 1, &length);
	size_t at = (size_t)glue_number(&call, 2, BD_CONSUMING - 1);
	int32_t *fds = glue_array(&call, 4, napi_int32_array, &room);

	call.bad |= room < BD_MAX_FDS + 1 || length == 0;
	return glue_result(&call, call.bad ? 0 : bd_peek(fd, at, into, length, fds + 1, fds));
}

NATIVE(consume)
{
	BEGIN;
	int fd = glue_fd(&call, 0);
	int64_t length = glue_number(&call, 1, BD_CONSUMING - 1);

	return glue_result(&call, call.bad ? 0 : bd_consume(fd, (size_t)length));
}

/* unconsumed(fd): what a consume() that was cut short left, or -1 when none was begun. */
NATIVE(unconsumed)
{
	BEGIN;
	int fd = glue_fd(&call, 0);
	int offset = call.bad ? 0 : bd_peek_offset(fd);

	return glue_result(&call, offset < BD_CONSUMING ? -1 : offset - BD_CONSUMING);
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

/* --- file descriptors --------------------------------------------------------------------------------------- */

NATIVE(close)
{
	BEGIN;
	int fd = glue_fd(&call, 0);

	return glue_result(&call, call.bad ? 0 : bd_close(fd));
}

NATIVE(offset)
{
	BEGIN;
	int fd = glue_fd(&call, 0);

	return glue_result(&call, call.bad ? 0 : bd_offset(fd));
}

NATIVE(setOffset)
{
	BEGIN;
	int fd = glue_fd(&call, 0);
	int64_t offset = glue_number(&call, 1, MAX_SAFE_INTEGER);

	return glue_result(&call, call.bad ? 0 : bd_set_offset(fd, offset));
}

/* punch(fd, offset, length) */
NATIVE(punch)
{
	BEGIN;
	int fd = glue_fd(&call, 0);
	int64_t offset = glue_number(&call, 1, MAX_SAFE_INTEGER);
	int64_t length = glue_number(&call, 2, MAX_SAFE_INTEGER);

	return glue_result(&call, call.bad ? 0 : bd_punch(fd, offset, length));
}

NATIVE(duplicate)
{
	BEGIN;
	int fd = glue_fd(&call, 0);

	return glue_result(&call, call.bad ? 0 : bd_duplicate(fd));
}

NATIVE(setNonBlocking)
{
	BEGIN;
	int fd = glue_fd(&call, 0);

	return glue_result(&call, call.bad ? 0 : bd_set_nonblocking(fd));
}

/* --- mappings ----------------------------------------------------------------------------------------------- */

#define KIND_MAPPING 0x6d617070u

struct mapping *glue_mapping(struct call *call, size_t index)
{
	struct mapping *mapping = glue_handle(call, index, KIND_MAPPING);

	if (mapping == NULL || mapping->memory.address == NULL) {
		call->bad = 1;
		return NULL;
	}
	return mapping;
}

static struct bd_mapping *mapping_argument(struct call *call, size_t index)
{
	struct mapping *mapping = glue_mapping(call, index);

	return mapping == NULL ? NULL : &mapping->memory;
}

static int inside(const struct bd_mapping *mapping, uint64_t offset, uint64_t length)
{
	return offset <= mapping->length && length <= mapping->length - offset;
}

static void finalize_mapping(napi_env env, void *data, void *hint)
{
	struct mapping *mapping = data;

	(void)env;
	(void)hint;
	/* At the end of the environment a discard may still be at work; what it works on stays. */
	if (mapping->users > 0)
		return;
	if (mapping->memory.address != NULL)
		bd_unmap(&mapping->memory);
	free(mapping);
}

/* map(fd, offset, length): an external, or a negative errno. */
NATIVE(map)
{
	napi_value result = NULL;
	struct mapping *mapping;
	int error;

	BEGIN;
	int fd = glue_fd(&call, 0);
	int64_t offset = glue_number(&call, 1, MAX_SAFE_INTEGER);
	int64_t length = glue_number(&call, 2, MAX_SAFE_INTEGER);

	if (call.bad)
		return glue_result(&call, 0);
	mapping = calloc(1, sizeof(*mapping));
	if (mapping == NULL)
		return glue_result(&call, -ENOMEM);
	mapping->handle.kind = KIND_MAPPING;
	error = bd_map(&mapping->memory, fd, offset, (size_t)length);
	if (error < 0) {
		free(mapping);
		return glue_result(&call, error);
	}
	if (napi_create_external(env, mapping, finalize_mapping, NULL, &result) != napi_ok) {
		finalize_mapping(env, mapping, NULL);
		return glue_result(&call, -ENOMEM);
	}
	return result;
}

NATIVE(unmap)
{
	BEGIN;
	struct mapping *mapping = glue_mapping(&call, 0);

	if (call.bad)
		return glue_result(&call, 0);
	return glue_result(&call, mapping->users > 0 ? -EBUSY : bd_unmap(&mapping->memory));
}

/*
 * view(mapping, offset, length): an ArrayBuffer over the mapping itself. The caller keeps the mapping's handle
 * alive as long as the view, and detaches the view before unmap(). Views may overlap: V8 keeps no table of
 * addresses for buffers that are not shared.
 */
NATIVE(view)
{
	napi_value result = NULL;

	BEGIN;
	struct bd_mapping *mapping = mapping_argument(&call, 0);
	int64_t offset = glue_number(&call, 1, MAX_SAFE_INTEGER);
	int64_t length = glue_number(&call, 2, MAX_SAFE_INTEGER);

	if (call.bad || length == 0 || length > 1 << 30 || !inside(mapping, (uint64_t)offset, (uint64_t)length)) {
		call.bad = 1;
		return glue_result(&call, 0);
	}
	if (napi_create_external_arraybuffer(env, mapping->address + offset, (size_t)length, NULL, NULL, &result) !=
	    napi_ok)
		return glue_result(&call, -ENOMEM);
	return result;
}

NATIVE(detach)
{
	bool detached = false;

	BEGIN;
	napi_is_detached_arraybuffer(env, call.values[0], &detached);
	if (!detached && napi_detach_arraybuffer(env, call.values[0]) != napi_ok)
		call.bad = 1;
	return glue_result(&call, 0);
}

/* faults(mapping): how many of its pages could not be had, 0 when it is unmapped. */
NATIVE(faults)
{
	BEGIN;
	struct mapping *mapping = glue_handle(&call, 0, KIND_MAPPING);

	return glue_result(&call, call.bad ? 0 : bd_faults(&mapping->memory));
}

/* allFaults(): the count over all mappings as memory that changes with it. */
NATIVE(allFaults)
{
	napi_value result = NULL;

	(void)info;
	napi_create_external_arraybuffer(env, bd_all_faults(), sizeof(uint32_t), NULL, NULL, &result);
	return result;
}

/* read(mapping, at, bytes, offset, length) and write(the same) */
static napi_value copy(napi_env env, napi_callback_info info, int out)
{
	size_t length;

	BEGIN;
	struct bd_mapping *mapping = mapping_argument(&call, 0);
	uint64_t at = (uint64_t)glue_number(&call, 1, MAX_SAFE_INTEGER);
	uint8_t *bytes = bytes_argument(&call, 2, &length);

	call.bad |= call.bad || !inside(mapping, at, length);
	if (!call.bad)
		memcpy(out ? bytes : mapping->address + at, out ? mapping->address + at : bytes, length);
	return glue_result(&call, 0);
}

NATIVE(read)
{
	return copy(env, info, 1);
}

NATIVE(write)
{
	return copy(env, info, 0);
}

NATIVE(memfd)
{
	char name[250];
	int error;

	BEGIN;
	error = text_argument(&call, 0, name, sizeof(name));
	int64_t size = glue_number(&call, 1, MAX_SAFE_INTEGER);
	int64_t shift = glue_number(&call, 2, 63);

	return glue_result(&call, call.bad || error ? error : bd_memfd(name, size, (int)shift));
}

NATIVE(seal)
{
	BEGIN;
	int fd = glue_fd(&call, 0);

	return glue_result(&call, call.bad ? 0 : bd_seal(fd));
}

/* --- discard ------------------------------------------------------------------------------------------------ */

NATIVE(pidfdSelf)
{
	BEGIN;
	return glue_result(&call, bd_pidfd_self());
}

NATIVE(pageBytes)
{
	BEGIN;
	return glue_result(&call, (int64_t)bd_page_bytes());
}

int glue_ranges_inside(const struct bd_mapping *mapping, const double *ranges, size_t count)
{
	size_t n;

	for (n = 0; n < count; n++) {
		double offset = ranges[2 * n], length = ranges[2 * n + 1];

		if (!(offset >= 0) || !(length >= 0) || offset > (double)mapping->length ||
		    length > (double)mapping->length - offset)
			return 0;
	}
	return 1;
}

/* discard(mapping, fd, ranges, count, method, error): how many were done; error[0] says what stopped it. */
NATIVE(discard)
{
	size_t doubles, room, done = 0;
	int error = 0;

	BEGIN;
	struct bd_mapping *mapping = mapping_argument(&call, 0);
	int fd = glue_fd(&call, 1);
	double *ranges = glue_array(&call, 2, napi_float64_array, &doubles);
	size_t count = (size_t)glue_number(&call, 3, MAX_SAFE_INTEGER);
	int64_t method = glue_number(&call, 4, BD_FALLOCATE);
	int32_t *failure = glue_array(&call, 5, napi_int32_array, &room);

	call.bad |= call.bad || count > doubles / 2 || room < 1 ||
		    !glue_ranges_inside(mapping, ranges, count);
	if (!call.bad) {
		done = bd_discard(mapping, fd, ranges, count, (enum bd_discard_method)method, &error);
		failure[0] = error;
	}
	return glue_result(&call, (int64_t)done);
}

/* discardVector(mapping, pidfd, ranges, count): how many one call of process_madvise did. */
NATIVE(discardVector)
{
	size_t doubles;

	BEGIN;
	struct bd_mapping *mapping = mapping_argument(&call, 0);
	int pidfd = glue_fd(&call, 1);
	double *ranges = glue_array(&call, 2, napi_float64_array, &doubles);
	size_t count = (size_t)glue_number(&call, 3, MAX_SAFE_INTEGER);

	call.bad |= call.bad || count > doubles / 2 || !glue_ranges_inside(mapping, ranges, count);
	return glue_result(&call, call.bad ? 0 : (int64_t)bd_discard_vector(mapping, pidfd, ranges, count));
}

/* --- events ------------------------------------------------------------------------------------------------- */

NATIVE(eventfd)
{
	BEGIN;
	int64_t initial = glue_number(&call, 0, UINT32_MAX);

	return glue_result(&call, call.bad ? 0 : bd_eventfd((unsigned int)initial));
}

NATIVE(signal)
{
	void *signaller = NULL;

	BEGIN;
	int fd = glue_fd(&call, 0);

	call.bad |= napi_get_instance_data(env, &signaller) != napi_ok || signaller == NULL;
	return glue_result(&call, call.bad ? 0 : bd_eventfd_signal(signaller, fd));
}

NATIVE(drain)
{
	BEGIN;
	int fd = glue_fd(&call, 0);

	return glue_result(&call, call.bad ? 0 : bd_eventfd_drain(fd));
}

NATIVE(bootTime)
{
	BEGIN;
	return glue_result(&call, bd_boot_us());
}

/* ------------------------------------------------------------------------------------------------------------ */

static void finalize_signaller(napi_env env, void *data, void *hint)
{
	(void)env;
	(void)hint;
	bd_signaller_close(data);
	free(data);
}

NAPI_MODULE_INIT()
{
	static const napi_property_descriptor functions[] = {
		EXPORT(listen),	   EXPORT(connect),   EXPORT(accept),	 EXPORT(socketPair),	 EXPORT(isListening),
		EXPORT(peer),	   EXPORT(receive),   EXPORT(send),	 EXPORT(close),		 EXPORT(duplicate),
		EXPORT(map),	   EXPORT(unmap),     EXPORT(view),	 EXPORT(detach),	 EXPORT(setNonBlocking),
		EXPORT(read),	   EXPORT(write),     EXPORT(memfd),	 EXPORT(discard),	 EXPORT(discardVector),
		EXPORT(pidfdSelf), EXPORT(pageBytes), EXPORT(eventfd),	 EXPORT(signal),	 EXPORT(drain),
		EXPORT(peek),	   EXPORT(consume),	 EXPORT(unconsumed),	 EXPORT(hungUp),
		EXPORT(sendFile),  EXPORT(unread),    EXPORT(offset),	 EXPORT(setOffset),	 EXPORT(punch),
		EXPORT(acceptAndTell), EXPORT(boundPath), EXPORT(datagramConnect),		 EXPORT(datagramBind),
		EXPORT(faults),	   EXPORT(allFaults), EXPORT(seal),	 EXPORT(sendDescriptor),
		EXPORT(bootTime),
	};
	struct bd_signaller *signaller = calloc(1, sizeof(*signaller));

	if (signaller == NULL)
		return NULL;
	if (napi_set_instance_data(env, signaller, finalize_signaller, NULL) != napi_ok) {
		free(signaller);
		return NULL;
	}
	if (napi_define_properties(env, exports, sizeof(functions) / sizeof(functions[0]), functions) != napi_ok ||
	    glue_export_watch(env, exports) != napi_ok || glue_export_behind(env, exports) != napi_ok ||
	    glue_export_writer(env, exports) != napi_ok)
		return NULL;
	return exports;
}
