/*
 * Glue: discards on a thread of the event loop's pool. Everything that the thread reads is its own copy, and the
 * mapping stays mapped until the callback, so that neither the collector nor the end of the environment can take
 * anything from under it: a range that changed would be somebody's data.
 */
#define _GNU_SOURCE
#include "glue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#define KIND_BEHIND 0x62686e64u

/* What is done between two looks at the wish to stop: a millisecond or so. */
#define TURN_RANGES 64
#define TURN_BYTES (4 << 20)

#define NOT_ATTEMPTED (-1)

#define NICE 5

struct behind {
	struct handle handle;
	uv_work_t work;
	napi_env env;
	napi_async_context context;
	/* Of the callback, the mapping's handle and the array of outcomes. */
	napi_ref references[3];
	struct mapping *mapping;
	struct bd_mapping memory;
	int fd;
	enum bd_discard_method method;
	int stop;
	int owners;
	double seconds;
	int32_t *outcomes;
	size_t count;
	double ranges[];
};

/* Of CPU that this thread used: what others did meanwhile is not its cost. */
static double spent(void)
{
	struct timespec time;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Why a thread could not step back, as an errno; 0 as long as each could. */
static int refused;

/* Ring work comes first: with few cores, a thread that discards would keep the event loop waiting for milliseconds. */
static void step_back(void)
{
	static __thread int done;

	if (!done && setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE) < 0)
		__atomic_store_n(&refused, errno, __ATOMIC_RELAXED);
	done = 1;
}

static size_t turn(const struct behind *job, size_t from)
{
	double bytes = 0;
	size_t count = 0;

	while (from + count < job->count && count < TURN_RANGES && bytes < TURN_BYTES)
		bytes += job->ranges[2 * (from + count++) + 1];
	return count;
}

static void work(uv_work_t *request)
{
	struct behind *job = request->data;
	int32_t *outcomes = job->outcomes;
	double started = spent();
	size_t at = 0, done, n;
	int error;

	step_back();
	while (at < job->count && !__atomic_load_n(&job->stop, __ATOMIC_RELAXED)) {
		size_t count = turn(job, at);

		done = bd_discard(&job->memory, job->fd, job->ranges + 2 * at, count, job->method, &error);
		for (n = 0; n < done; n++)
			outcomes[at + n] = 0;
		at += done;
		if (done < count)
			outcomes[at++] = error;
	}
	while (at < job->count)
		outcomes[at++] = NOT_ATTEMPTED;
	job->seconds = spent() - started;
}

static void release(struct behind *job)
{
	if (--job->owners > 0)
		return;
	free(job->outcomes);
	free(job);
}

static void finalize(napi_env env, void *data, void *hint)
{
	(void)env;
	(void)hint;
	release(data);
}

static void forget(struct behind *job)
{
	size_t n;

	for (n = 0; n < sizeof(job->references) / sizeof(job->references[0]); n++)
		if (job->references[n] != NULL)
			napi_delete_reference(job->env, job->references[n]);
	if (job->context != NULL)
		napi_async_destroy(job->env, job->context);
	release(job);
}

static void finished(uv_work_t *request, int status)
{
	struct behind *job = request->data;
	napi_env env = job->env;
	napi_handle_scope scope;
	napi_value array;
	void *outcomes;

	(void)status;
	job->mapping->users--;
	if (napi_open_handle_scope(env, &scope) != napi_ok)
		return;
	if (napi_get_reference_value(env, job->references[2], &array) == napi_ok &&
	    napi_get_typedarray_info(env, array, NULL, NULL, &outcomes, NULL, NULL) == napi_ok) {
		memcpy(outcomes, job->outcomes, job->count * sizeof(*job->outcomes));
		glue_call_back(env, job->context, job->references[0], 1, &job->seconds);
	}
	forget(job);
	napi_close_handle_scope(env, scope);
}

static int start(struct behind *job, const napi_value held[3])
{
	napi_env env = job->env;
	napi_value name;
	uv_loop_t *loop;
	size_t n;

	if (napi_get_uv_event_loop(env, &loop) != napi_ok ||
	    napi_create_string_utf8(env, "balloond", NAPI_AUTO_LENGTH, &name) != napi_ok ||
	    napi_async_init(env, NULL, name, &job->context) != napi_ok)
		return -ENOMEM;
	for (n = 0; n < 3; n++)
		if (napi_create_reference(env, held[n], 1, &job->references[n]) != napi_ok)
			return -ENOMEM;
	job->work.data = job;
	return uv_queue_work(loop, &job->work, work, finished);
}

/*
 * discardBehind(mapping, fd, ranges, count, method, outcomes, callback): an external for stopBehind(), or a negative
 * errno. Calls back with the seconds it took; outcomes[n] is then 0 when range n was discarded, its errno when it
 * failed, and -1 when it was not attempted.
 */
NATIVE(discardBehind)
{
	napi_valuetype type = napi_undefined;
	napi_value result = NULL;
	struct behind *job;
	size_t doubles, room;
	int error;

	BEGIN;
	struct mapping *mapping = glue_mapping(&call, 0);
	int fd = glue_fd(&call, 1);
	const double *ranges = glue_array(&call, 2, napi_float64_array, &doubles);
	size_t count = (size_t)glue_number(&call, 3, MAX_SAFE_INTEGER);
	int64_t method = glue_number(&call, 4, BD_RESERVE);
	glue_array(&call, 5, napi_int32_array, &room);
	const napi_value held[3] = { call.values[6], call.values[0], call.values[5] };

	napi_typeof(env, call.values[6], &type);
	call.bad |= call.bad || type != napi_function || count > doubles / 2 || count > room ||
		    !glue_ranges_inside(&mapping->memory, ranges, count);
	if (call.bad)
		return glue_result(&call, 0);
	job = calloc(1, sizeof(*job) + 2 * count * sizeof(*ranges));
	if (job == NULL)
		return glue_result(&call, -ENOMEM);
	job->handle.kind = KIND_BEHIND;
	job->env = env;
	job->mapping = mapping;
	job->memory = mapping->memory;
	job->fd = fd;
	job->method = (enum bd_discard_method)method;
	job->owners = 1;
	job->outcomes = calloc(count + 1, sizeof(*job->outcomes));
	job->count = count;
	memcpy(job->ranges, ranges, 2 * count * sizeof(*ranges));
	error = -ENOMEM;
	if (job->outcomes != NULL && napi_create_external(env, job, finalize, NULL, &result) == napi_ok) {
		job->owners++;
		error = start(job, held);
	}
	if (error < 0) {
		forget(job);
		return glue_result(&call, error);
	}
	mapping->users++;
	return result;
}

/* stopBehind(job): what was not begun yet is not attempted any more. */
NATIVE(stopBehind)
{
	BEGIN;
	struct behind *job = glue_handle(&call, 0, KIND_BEHIND);

	if (!call.bad)
		__atomic_store_n(&job->stop, 1, __ATOMIC_RELAXED);
	return glue_result(&call, 0);
}

/* priorityRefused(): the errno with which a thread was refused a lower priority, or 0. */
NATIVE(priorityRefused)
{
	BEGIN;
	return glue_result(&call, __atomic_load_n(&refused, __ATOMIC_RELAXED));
}

napi_status glue_export_behind(napi_env env, napi_value exports)
{
	static const napi_property_descriptor functions[] = { EXPORT(discardBehind), EXPORT(stopBehind),
							       EXPORT(priorityRefused) };

	return napi_define_properties(env, exports, sizeof(functions) / sizeof(functions[0]), functions);
}
