/*
 * Glue between JavaScript and native.h, and nothing else. Results are passed on as numbers, negative ones being
 * -errno; src/os turns those into errors. Arguments are checked here, since a wrong one must not end the process.
 */
#define NAPI_VERSION 8
#include "native.h"

#include <errno.h>
#include <node_api.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#define MAX_ARGUMENTS 6

struct call {
	napi_env env;
	size_t count;
	napi_value values[MAX_ARGUMENTS];
	int bad;
};

static void call_begin(struct call *call, napi_env env, napi_callback_info info)
{
	memset(call, 0, sizeof(*call));
	call->env = env;
	call->count = MAX_ARGUMENTS;
	if (napi_get_cb_info(env, info, &call->count, call->values, NULL, NULL) != napi_ok)
		call->bad = 1;
}

/* A whole number in 0 .. 2^53 - 1. */
static int64_t number_argument(struct call *call, size_t index)
{
	double value = -1;

	if (napi_get_value_double(call->env, call->values[index], &value) != napi_ok || !(value >= 0) ||
	    value > 9007199254740991.0 || value != (double)(int64_t)value) {
		call->bad = 1;
		return 0;
	}
	return (int64_t)value;
}

static int fd_argument(struct call *call, size_t index)
{
	int64_t value = number_argument(call, index);

	if (value > INT32_MAX)
		call->bad = 1;
	return (int)value;
}

/* Memory of a typed array of the given type; `length` in elements. */
static void *array_argument(struct call *call, size_t index, napi_typedarray_type wanted, size_t *length)
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
	uint8_t *data = array_argument(call, index, napi_uint8_array, &whole);
	uint64_t offset = (uint64_t)number_argument(call, index + 1);

	*length = (size_t)number_argument(call, index + 2);
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

static napi_value number_result(struct call *call, int64_t value)
{
	napi_value result = NULL;

	if (call->bad) {
		napi_throw_type_error(call->env, NULL, "bad argument for the native helper");
		return NULL;
	}
	napi_create_int64(call->env, value, &result);
	return result;
}

#define NATIVE(name) static napi_value js_##name(napi_env env, napi_callback_info info)
#define BEGIN           \
	struct call call; \
	call_begin(&call, env, info)

/* --- sockets ------------------------------------------------------------------------------------------------ */

NATIVE(listen)
{
	char path[4096];
	int64_t mode;
	int error;

	BEGIN;
	error = text_argument(&call, 0, path, sizeof(path));
	mode = number_argument(&call, 1);
	return number_result(&call, call.bad || error ? error : bd_listen(path, (mode_t)mode));
}

NATIVE(connect)
{
	char path[4096];
	int error;

	BEGIN;
	error = text_argument(&call, 0, path, sizeof(path));
	return number_result(&call, call.bad || error ? error : bd_connect(path));
}

NATIVE(accept)
{
	BEGIN;
	int fd = fd_argument(&call, 0);

	return number_result(&call, call.bad ? 0 : bd_accept(fd));
}

NATIVE(socketPair)
{
	size_t length;

	BEGIN;
	int32_t *fds = array_argument(&call, 0, napi_int32_array, &length);

	call.bad |= length < 2;
	return number_result(&call, call.bad ? 0 : bd_socketpair(fds));
}

NATIVE(isListening)
{
	BEGIN;
	int fd = fd_argument(&call, 0);

	return number_result(&call, call.bad ? 0 : bd_is_listening(fd));
}

NATIVE(peer)
{
	size_t length;

	BEGIN;
	int fd = fd_argument(&call, 0);
	int32_t *into = array_argument(&call, 1, napi_int32_array, &length);

	call.bad |= length < 3;
	return number_result(&call, call.bad ? 0 : bd_peer(fd, into));
}

/* receive(fd, bytes, offset, length, fds): fds[0] becomes their number, they follow. */
NATIVE(receive)
{
	size_t length, room;

	BEGIN;
	int fd = fd_argument(&call, 0);
	uint8_t *into = bytes_argument(&call, 1, &length);
	int32_t *fds = array_argument(&call, 4, napi_int32_array, &room);

	call.bad |= room < BD_MAX_FDS + 1;
	return number_result(&call, call.bad ? 0 : bd_receive(fd, into, length, fds + 1, fds));
}

/* send(fd, bytes, offset, length, fds) */
NATIVE(send)
{
	size_t length, count;

	BEGIN;
	int fd = fd_argument(&call, 0);
	uint8_t *from = bytes_argument(&call, 1, &length);
	int32_t *fds = array_argument(&call, 4, napi_int32_array, &count);

	return number_result(&call, call.bad ? 0 : bd_send(fd, from, length, fds, count));
}

NATIVE(close)
{
	BEGIN;
	int fd = fd_argument(&call, 0);

	/* Linux releases the number whatever close() says, so EINTR is not worth a second try. */
	return number_result(&call, call.bad || close(fd) == 0 || errno == EINTR ? 0 : -errno);
}

/* --- mappings ----------------------------------------------------------------------------------------------- */

static const napi_type_tag mapping_tag = { 0x62616c6c6f6f6e64, 0x6d617070696e6731 };

static struct bd_mapping *mapping_argument(struct call *call, size_t index)
{
	void *data = NULL;
	bool tagged = false;

	if (napi_check_object_type_tag(call->env, call->values[index], &mapping_tag, &tagged) != napi_ok || !tagged ||
	    napi_get_value_external(call->env, call->values[index], &data) != napi_ok)
		call->bad = 1;
	else if (((struct bd_mapping *)data)->address == NULL)
		call->bad = 1;
	return data;
}

static int inside(const struct bd_mapping *mapping, uint64_t offset, uint64_t length)
{
	return offset <= mapping->length && length <= mapping->length - offset;
}

static void finalize_mapping(napi_env env, void *data, void *hint)
{
	struct bd_mapping *mapping = data;

	(void)env;
	(void)hint;
	if (mapping->address != NULL)
		bd_unmap(mapping);
	free(mapping);
}

/* map(fd, offset, length): an external, or a negative errno. */
NATIVE(map)
{
	napi_value result = NULL;
	struct bd_mapping *mapping;
	int error;

	BEGIN;
	int fd = fd_argument(&call, 0);
	int64_t offset = number_argument(&call, 1);
	int64_t length = number_argument(&call, 2);

	if (call.bad)
		return number_result(&call, 0);
	mapping = calloc(1, sizeof(*mapping));
	if (mapping == NULL)
		return number_result(&call, -ENOMEM);
	error = bd_map(mapping, fd, offset, (size_t)length);
	if (error < 0) {
		free(mapping);
		return number_result(&call, error);
	}
	if (napi_create_external(env, mapping, finalize_mapping, NULL, &result) != napi_ok) {
		finalize_mapping(env, mapping, NULL);
		return number_result(&call, -ENOMEM);
	}
	napi_type_tag_object(env, result, &mapping_tag);
	return result;
}

NATIVE(unmap)
{
	BEGIN;
	struct bd_mapping *mapping = mapping_argument(&call, 0);

	return number_result(&call, call.bad ? 0 : bd_unmap(mapping));
}

/* view(mapping, offset, length): an ArrayBuffer over the mapping itself; detach() it before unmap(). */
NATIVE(view)
{
	napi_value result = NULL;

	BEGIN;
	struct bd_mapping *mapping = mapping_argument(&call, 0);
	int64_t offset = number_argument(&call, 1);
	int64_t length = number_argument(&call, 2);

	if (call.bad || length == 0 || length > 1 << 30 || !inside(mapping, (uint64_t)offset, (uint64_t)length)) {
		call.bad = 1;
		return number_result(&call, 0);
	}
	if (napi_create_external_arraybuffer(env, mapping->address + offset, (size_t)length, NULL, NULL, &result) !=
	    napi_ok)
		return number_result(&call, -ENOMEM);
	return result;
}

NATIVE(detach)
{
	bool detached = false;

	BEGIN;
	napi_is_detached_arraybuffer(env, call.values[0], &detached);
	if (!detached && napi_detach_arraybuffer(env, call.values[0]) != napi_ok)
		call.bad = 1;
	return number_result(&call, 0);
}

/* read(mapping, at, bytes, offset, length) and write(the same) */
static napi_value copy(napi_env env, napi_callback_info info, int out)
{
	size_t length;

	BEGIN;
	struct bd_mapping *mapping = mapping_argument(&call, 0);
	uint64_t at = (uint64_t)number_argument(&call, 1);
	uint8_t *bytes = bytes_argument(&call, 2, &length);

	call.bad |= call.bad || !inside(mapping, at, length);
	if (!call.bad)
		memcpy(out ? bytes : mapping->address + at, out ? mapping->address + at : bytes, length);
	return number_result(&call, 0);
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
	int64_t size = number_argument(&call, 1);
	int64_t shift = number_argument(&call, 2);

	return number_result(&call, call.bad || error ? error : bd_memfd(name, size, (int)shift));
}

/* --- discard ------------------------------------------------------------------------------------------------ */

NATIVE(pidfdSelf)
{
	BEGIN;
	return number_result(&call, bd_pidfd_self());
}

static int ranges_inside(const struct bd_mapping *mapping, const double *ranges, size_t count)
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
	int fd = fd_argument(&call, 1);
	double *ranges = array_argument(&call, 2, napi_float64_array, &doubles);
	size_t count = (size_t)number_argument(&call, 3);
	int64_t method = number_argument(&call, 4);
	int32_t *failure = array_argument(&call, 5, napi_int32_array, &room);

	call.bad |= call.bad || count > doubles / 2 || method > BD_FALLOCATE || room < 1 ||
		    !ranges_inside(mapping, ranges, count);
	if (!call.bad) {
		done = bd_discard(mapping, fd, ranges, count, (enum bd_discard_method)method, &error);
		failure[0] = error;
	}
	return number_result(&call, (int64_t)done);
}

/* discardVector(mapping, pidfd, ranges, count): how many one call of process_madvise did. */
NATIVE(discardVector)
{
	size_t doubles;

	BEGIN;
	struct bd_mapping *mapping = mapping_argument(&call, 0);
	int pidfd = fd_argument(&call, 1);
	double *ranges = array_argument(&call, 2, napi_float64_array, &doubles);
	size_t count = (size_t)number_argument(&call, 3);

	call.bad |= call.bad || count > doubles / 2 || !ranges_inside(mapping, ranges, count);
	return number_result(&call, call.bad ? 0 : (int64_t)bd_discard_vector(mapping, pidfd, ranges, count));
}

/* --- events ------------------------------------------------------------------------------------------------- */

NATIVE(eventfd)
{
	BEGIN;
	int64_t initial = number_argument(&call, 0);

	return number_result(&call, call.bad ? 0 : bd_eventfd((unsigned int)initial));
}

NATIVE(signal)
{
	BEGIN;
	int fd = fd_argument(&call, 0);

	return number_result(&call, call.bad ? 0 : bd_eventfd_signal(fd));
}

NATIVE(drain)
{
	BEGIN;
	int fd = fd_argument(&call, 0);

	return number_result(&call, call.bad ? 0 : bd_eventfd_drain(fd));
}

/*
 * A watched fd. The handle belongs to the loop until uv_close() calls back, the structure to JavaScript's external
 * as well: whichever ends last frees it.
 */
struct watch {
	uv_poll_t handle;
	napi_env env;
	napi_ref callback;
	napi_async_context context;
	int fd;
	int drains;
	int closing;
	int owners;
};

static const napi_type_tag watch_tag = { 0x62616c6c6f6f6e64, 0x7761746368657231 };

static void release_watch(struct watch *watch)
{
	if (--watch->owners == 0)
		free(watch);
}

static void watch_closed(uv_handle_t *handle)
{
	release_watch(handle->data);
}

static void stop_watch(struct watch *watch)
{
	if (watch->closing)
		return;
	watch->closing = 1;
	napi_delete_reference(watch->env, watch->callback);
	napi_async_destroy(watch->env, watch->context);
	uv_close((uv_handle_t *)&watch->handle, watch_closed);
}

static void stop_at_exit(void *data)
{
	stop_watch(data);
}

static void finalize_watch(napi_env env, void *data, void *hint)
{
	(void)env;
	(void)hint;
	release_watch(data);
}

static void watch_ready(uv_poll_t *handle, int status, int events)
{
	struct watch *watch = handle->data;
	napi_env env = watch->env;
	napi_handle_scope scope;
	napi_value receiver, callback, values[2];

	if (watch->drains && status == 0)
		bd_eventfd_drain(watch->fd);
	if (napi_open_handle_scope(env, &scope) != napi_ok)
		return;
	napi_get_global(env, &receiver);
	napi_get_reference_value(env, watch->callback, &callback);
	napi_create_int32(env, events, &values[0]);
	napi_create_int32(env, status, &values[1]);
	if (napi_make_callback(env, watch->context, receiver, callback, 2, values, NULL) == napi_pending_exception) {
		napi_value error;

		napi_get_and_clear_last_exception(env, &error);
		napi_fatal_exception(env, error);
	}
	napi_close_handle_scope(env, scope);
}

/* watch(fd, events, drains, callback): an external, or a negative errno. */
NATIVE(watch)
{
	napi_value name, result = NULL;
	napi_valuetype type = napi_undefined;
	struct watch *watch;
	uv_loop_t *loop;
	int error;

	BEGIN;
	int fd = fd_argument(&call, 0);
	int64_t events = number_argument(&call, 1);
	int64_t drains = number_argument(&call, 2);

	napi_typeof(env, call.values[3], &type);
	if (call.bad || type != napi_function || napi_get_uv_event_loop(env, &loop) != napi_ok) {
		call.bad = 1;
		return number_result(&call, 0);
	}
	watch = calloc(1, sizeof(*watch));
	if (watch == NULL)
		return number_result(&call, -ENOMEM);
	error = uv_poll_init(loop, &watch->handle, fd);
	if (error < 0) {
		free(watch);
		return number_result(&call, error);
	}
	watch->handle.data = watch;
	watch->env = env;
	watch->fd = fd;
	watch->drains = drains != 0;
	watch->owners = 1;
	napi_create_string_utf8(env, "balloond", NAPI_AUTO_LENGTH, &name);
	napi_async_init(env, NULL, name, &watch->context);
	napi_create_reference(env, call.values[3], 1, &watch->callback);
	napi_add_env_cleanup_hook(env, stop_at_exit, watch);
	error = uv_poll_start(&watch->handle, (int)events, watch_ready);
	if (error == 0 && napi_create_external(env, watch, finalize_watch, NULL, &result) == napi_ok) {
		watch->owners++;
		napi_type_tag_object(env, result, &watch_tag);
		return result;
	}
	napi_remove_env_cleanup_hook(env, stop_at_exit, watch);
	stop_watch(watch);
	return number_result(&call, error < 0 ? error : -ENOMEM);
}

static struct watch *watch_argument(struct call *call, size_t index)
{
	void *data = NULL;
	bool tagged = false;

	if (napi_check_object_type_tag(call->env, call->values[index], &watch_tag, &tagged) != napi_ok || !tagged ||
	    napi_get_value_external(call->env, call->values[index], &data) != napi_ok)
		call->bad = 1;
	return data;
}

NATIVE(setEvents)
{
	BEGIN;
	struct watch *watch = watch_argument(&call, 0);
	int64_t events = number_argument(&call, 1);

	if (call.bad || watch->closing) {
		call.bad = 1;
		return number_result(&call, 0);
	}
	return number_result(&call, uv_poll_start(&watch->handle, (int)events, watch_ready));
}

NATIVE(unwatch)
{
	BEGIN;
	struct watch *watch = watch_argument(&call, 0);

	if (!call.bad && !watch->closing) {
		napi_remove_env_cleanup_hook(env, stop_at_exit, watch);
		stop_watch(watch);
	}
	return number_result(&call, 0);
}

/* ------------------------------------------------------------------------------------------------------------ */

#define EXPORT(name) { #name, NULL, js_##name, NULL, NULL, NULL, napi_enumerable, NULL }

NAPI_MODULE_INIT()
{
	static const napi_property_descriptor functions[] = {
		EXPORT(listen), EXPORT(connect), EXPORT(accept),  EXPORT(socketPair), EXPORT(isListening),
		EXPORT(peer),	EXPORT(receive), EXPORT(send),	  EXPORT(close),      EXPORT(map),
		EXPORT(unmap),	EXPORT(view),	 EXPORT(detach),  EXPORT(read),	      EXPORT(write),
		EXPORT(memfd),	EXPORT(discard), EXPORT(eventfd), EXPORT(signal),     EXPORT(drain),
		EXPORT(watch),	EXPORT(unwatch), EXPORT(pidfdSelf), EXPORT(setEvents),
		EXPORT(discardVector),
	};

	return napi_define_properties(env, exports, sizeof(functions) / sizeof(functions[0]), functions) == napi_ok
		       ? exports
		       : NULL;
}
