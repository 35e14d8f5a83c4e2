/*
 * Glue: file descriptors watched on Node's event loop. The uv handle belongs to the loop until uv_close() calls
 * back, the structure to JavaScript's external as well: whichever ends last frees it.
 */
#include "glue.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <uv.h>

#define KIND_WATCH 0x77617463u

struct watch {
	struct handle handle;
	uv_poll_t poll;
	napi_env env;
	napi_ref callback;
	napi_async_context context;
	int fd;
	int events;
	enum { LEVEL, EDGES, COUNTER } mode;
	/* It is registered for edges. */
	int edge;
	int closing;
	int owners;
};

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
	watch->closing = 1;
	if (watch->callback != NULL)
		napi_delete_reference(watch->env, watch->callback);
	if (watch->context != NULL)
		napi_async_destroy(watch->env, watch->context);
	uv_close((uv_handle_t *)&watch->poll, watch_closed);
}

/* The loop of an environment that ends (a worker's) may be closed only without handles. */
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

/*
 * An fd that is watched for edges need not be read until it is empty: each message and each write to a counter is told of once
 * (eventfd_write wakes epoll also when the counter was not zero). libuv watches levels alone, and leaves alone what it has
 * registered; what is there when the kind of watch changes is told of once more.
 */
static int watch_edges(struct watch *watch)
{
	struct epoll_event event = { .events = EPOLLET, .data.fd = watch->fd };

	if (watch->events & UV_READABLE)
		event.events |= EPOLLIN;
	if (watch->events & UV_WRITABLE)
		event.events |= EPOLLOUT;
	return epoll_ctl(uv_backend_fd(watch->poll.loop), EPOLL_CTL_MOD, watch->fd, &event) == 0;
}

static void watch_ready(uv_poll_t *poll, int status, int events)
{
	struct watch *watch = poll->data;
	double numbers[2] = { events, status };

	if (status < 0)
		/* libuv calls every error EBADF, and stops. */
		numbers[1] = -bd_pending_error(watch->fd);
	else if (watch->mode != LEVEL && !watch->edge) {
		if (watch->mode == COUNTER)
			bd_eventfd_drain(watch->fd);
		watch->edge = watch_edges(watch);
	}
	glue_call_back(watch->env, watch->context, watch->callback, 2, numbers);
}

static int events_argument(struct call *call, size_t index)
{
	int events = (int)glue_number(call, index, UV_READABLE | UV_WRITABLE | UV_PRIORITIZED);

	call->bad |= (events & UV_DISCONNECT) != 0;
	return events;
}

static int set_events(struct watch *watch, int events)
{
	watch->events = events;
	watch->edge = 0;
	return uv_poll_start(&watch->poll, events, watch_ready);
}

/* Whatever this leaves undone, stop_watch() undoes the rest. */
static int start_watch(struct watch *watch, napi_value callback, int events)
{
	napi_env env = watch->env;
	napi_value name;

	if (napi_create_string_utf8(env, "balloond", NAPI_AUTO_LENGTH, &name) != napi_ok ||
	    napi_async_init(env, NULL, name, &watch->context) != napi_ok ||
	    napi_create_reference(env, callback, 1, &watch->callback) != napi_ok)
		return -ENOMEM;
	return set_events(watch, events);
}

/* watch(fd, events, mode, callback): an external, or a negative errno. */
NATIVE(watch)
{
	napi_value result = NULL;
	napi_valuetype type = napi_undefined;
	struct watch *watch;
	uv_loop_t *loop;
	int error;

	BEGIN;
	int fd = glue_fd(&call, 0);
	int events = events_argument(&call, 1);
	int64_t mode = glue_number(&call, 2, COUNTER);

	napi_typeof(env, call.values[3], &type);
	call.bad |= type != napi_function || napi_get_uv_event_loop(env, &loop) != napi_ok;
	if (call.bad)
		return glue_result(&call, 0);
	watch = calloc(1, sizeof(*watch));
	if (watch == NULL)
		return glue_result(&call, -ENOMEM);
	error = uv_poll_init(loop, &watch->poll, fd);
	if (error < 0) {
		free(watch);
		return glue_result(&call, error);
	}
	watch->handle.kind = KIND_WATCH;
	watch->poll.data = watch;
	watch->env = env;
	watch->fd = fd;
	watch->mode = (int)mode;
	watch->owners = 1;
	error = start_watch(watch, call.values[3], events);
	if (error == 0 && napi_create_external(env, watch, finalize_watch, NULL, &result) == napi_ok) {
		watch->owners++;
		if (napi_add_env_cleanup_hook(env, stop_at_exit, watch) == napi_ok)
			return result;
	}
	stop_watch(watch);
	return glue_result(&call, error < 0 ? error : -ENOMEM);
}

/* setEvents(watch, events) */
NATIVE(setEvents)
{
	BEGIN;
	struct watch *watch = glue_handle(&call, 0, KIND_WATCH);
	int events = events_argument(&call, 1);

	call.bad |= call.bad || watch->closing;
	return glue_result(&call, call.bad ? 0 : set_events(watch, events));
}

/* unwatch(watch): nothing is called back after it. */
NATIVE(unwatch)
{
	BEGIN;
	struct watch *watch = glue_handle(&call, 0, KIND_WATCH);

	if (!call.bad && !watch->closing) {
		napi_remove_env_cleanup_hook(env, stop_at_exit, watch);
		stop_watch(watch);
	}
	return glue_result(&call, 0);
}

napi_status glue_export_watch(napi_env env, napi_value exports)
{
	static const napi_property_descriptor functions[] = { EXPORT(watch), EXPORT(setEvents), EXPORT(unwatch) };

	return napi_define_properties(env, exports, sizeof(functions) / sizeof(functions[0]), functions);
}
