/*
 * Glue: lines that a thread of their own writes to a file descriptor. A write() may wait for as long as it likes: for
 * the reader of a pipe, for a terminal that was stopped, for a disk or a file server. No flag and no poll() spares it
 * that (O_NONBLOCK does nothing for files, and belongs to everybody who shares the open file), so nothing but a thread
 * does. What waits is bounded; a line beyond that is dropped and counted. What cannot be written now is tried again.
 */
#define _GNU_SOURCE
#include "glue.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define KIND_WRITER 0x77726974u

/* Between two tries after a failure; doubled up to the longer one. */
#define RETRY_MS 50
#define RETRY_MS_MAX 1000

struct line {
	struct line *next;
	size_t length;
	uint8_t bytes[];
};

struct writer {
	struct handle handle;
	pthread_mutex_t lock;
	/* A line came, or it is to end. */
	pthread_cond_t wanted;
	/* A line was written, or could not be. */
	pthread_cond_t moved;
	int fd;
	size_t most;
	size_t queued;
	struct line *first;
	struct line **last;
	double written;
	double dropped;
	/* Of the last try; 0 when it went well. */
	int error;
	int ending;
	/* JavaScript's handle and the thread. */
	int owners;
};

static struct timespec in_ms(int64_t ms)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	time.tv_sec += ms / 1000;
	time.tv_nsec += (ms % 1000) * 1000000;
	if (time.tv_nsec >= 1000000000) {
		time.tv_sec++;
		time.tv_nsec -= 1000000000;
	}
	return time;
}

/* With the lock held, which it gives back. */
static void release(struct writer *writer)
{
	int owners = --writer->owners;
	struct line *line;

	pthread_mutex_unlock(&writer->lock);
	if (owners > 0)
		return;
	while ((line = writer->first) != NULL) {
		writer->first = line->next;
		free(line);
	}
	close(writer->fd);
	pthread_cond_destroy(&writer->wanted);
	pthread_cond_destroy(&writer->moved);
	pthread_mutex_destroy(&writer->lock);
	free(writer);
}

/* Without the lock. Others who share the open file may have made it non-blocking: then poll() waits. */
static int write_some(int fd, const struct line *line, size_t *at)
{
	struct pollfd wait = { .fd = fd, .events = POLLOUT };
	ssize_t done = write(fd, line->bytes + *at, line->length - *at);

	if (done >= 0) {
		*at += (size_t)done;
		return done > 0 ? 0 : EIO;
	}
	if (errno == EAGAIN && poll(&wait, 1, RETRY_MS_MAX) > 0)
		return EINTR;
	return errno;
}

static void *run(void *data)
{
	struct writer *writer = data;
	int64_t retry_ms = RETRY_MS;
	struct line *line;
	size_t at = 0;
	int error;

	pthread_mutex_lock(&writer->lock);
	while (!writer->ending) {
		line = writer->first;
		if (line == NULL) {
			pthread_cond_wait(&writer->wanted, &writer->lock);
			continue;
		}
		pthread_mutex_unlock(&writer->lock);
		error = write_some(writer->fd, line, &at);
		pthread_mutex_lock(&writer->lock);
		if (error == EINTR)
			continue;
		writer->error = error;
		if (error == 0) {
			retry_ms = RETRY_MS;
			if (at < line->length)
				continue;
			at = 0;
			writer->first = line->next;
			if (writer->first == NULL)
				writer->last = &writer->first;
			writer->queued -= line->length;
			writer->written++;
			free(line);
			pthread_cond_broadcast(&writer->moved);
			continue;
		}
		pthread_cond_broadcast(&writer->moved);
		/* A line that comes is no reason to try earlier. */
		struct timespec again = in_ms(retry_ms);
		while (!writer->ending &&
		       pthread_cond_timedwait(&writer->wanted, &writer->lock, &again) != ETIMEDOUT)
			;
		retry_ms = retry_ms * 2 > RETRY_MS_MAX ? RETRY_MS_MAX : retry_ms * 2;
	}
	release(writer);
	return NULL;
}

/*
 * The thread hears no signals: they are the event loop's, and one that writes to its terminal from the background is
 * then not stopped for it (SIGTTOU).
 */
static int start(struct writer *writer)
{
	pthread_attr_t attributes;
	sigset_t all, before;
	pthread_t thread;
	int error = pthread_attr_init(&attributes);

	if (error != 0)
		return -error;
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&thread, &attributes, run, writer);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	return -error;
}

static void end(struct writer *writer)
{
	writer->ending = 1;
	pthread_cond_broadcast(&writer->wanted);
}

static void finalize(napi_env env, void *data, void *hint)
{
	struct writer *writer = data;

	(void)env;
	(void)hint;
	pthread_mutex_lock(&writer->lock);
	end(writer);
	release(writer);
}

static struct writer *make(int fd, size_t most)
{
	struct writer *writer = calloc(1, sizeof(*writer));
	pthread_condattr_t monotonic;

	if (writer == NULL)
		return NULL;
	writer->handle.kind = KIND_WRITER;
	writer->fd = fd;
	writer->most = most;
	writer->last = &writer->first;
	writer->owners = 1;
	pthread_mutex_init(&writer->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&writer->wanted, &monotonic);
	pthread_cond_init(&writer->moved, &monotonic);
	pthread_condattr_destroy(&monotonic);
	return writer;
}

/* openWriter(fd, most): an external, or a negative errno. Takes its own copy of `fd`; `most` bytes may wait. */
NATIVE(openWriter)
{
	napi_value result = NULL;
	struct writer *writer;
	int copy, error;

	BEGIN;
	int fd = glue_fd(&call, 0);
	size_t most = (size_t)glue_number(&call, 1, INT32_MAX);

	if (call.bad)
		return glue_result(&call, 0);
	copy = bd_duplicate(fd);
	if (copy < 0)
		return glue_result(&call, copy);
	writer = make(copy, most);
	if (writer == NULL) {
		bd_close(copy);
		return glue_result(&call, -ENOMEM);
	}
	if (napi_create_external(env, writer, finalize, NULL, &result) != napi_ok) {
		finalize(env, writer, NULL);
		return glue_result(&call, -ENOMEM);
	}
	writer->owners++;
	error = start(writer);
	if (error < 0) {
		/* The handle is still JavaScript's, and says so when it is collected. */
		pthread_mutex_lock(&writer->lock);
		release(writer);
		return glue_result(&call, error);
	}
	return result;
}

/* writeLine(writer, bytes, offset, length): 1, or 0 when it was dropped. Never waits. */
NATIVE(writeLine)
{
	struct line *line = NULL;
	int taken = 0;
	size_t whole;

	BEGIN;
	struct writer *writer = glue_handle(&call, 0, KIND_WRITER);
	uint8_t *bytes = glue_array(&call, 1, napi_uint8_array, &whole);
	size_t length = (size_t)glue_number(&call, 2, MAX_SAFE_INTEGER);

	call.bad |= length > whole || length == 0;
	if (call.bad)
		return glue_result(&call, 0);
	pthread_mutex_lock(&writer->lock);
	/* One line is taken however long it is. */
	if (!writer->ending && (writer->first == NULL || writer->queued + length <= writer->most))
		line = malloc(sizeof(*line) + length);
	if (line == NULL) {
		writer->dropped++;
	} else {
		line->next = NULL;
		line->length = length;
		memcpy(line->bytes, bytes, length);
		*writer->last = line;
		writer->last = &line->next;
		writer->queued += length;
		taken = 1;
		pthread_cond_signal(&writer->wanted);
	}
	pthread_mutex_unlock(&writer->lock);
	return glue_result(&call, taken);
}

/* writerState(writer, into): bytes that wait, lines written, lines dropped, the errno of the last try. */
NATIVE(writerState)
{
	size_t room;

	BEGIN;
	struct writer *writer = glue_handle(&call, 0, KIND_WRITER);
	double *into = glue_array(&call, 1, napi_float64_array, &room);

	call.bad |= room < 4;
	if (call.bad)
		return glue_result(&call, 0);
	pthread_mutex_lock(&writer->lock);
	into[0] = (double)writer->queued;
	into[1] = writer->written;
	into[2] = writer->dropped;
	into[3] = writer->error;
	pthread_mutex_unlock(&writer->lock);
	return glue_result(&call, 0);
}

/*
 * flushWriter(writer, stepMs, mostMs): waits, `mostMs` at the longest, until nothing waits any more: as long as a line is
 * written every `stepMs` and no try fails. For the end of the process. 1 when all was written.
 */
NATIVE(flushWriter)
{
	BEGIN;
	struct writer *writer = glue_handle(&call, 0, KIND_WRITER);
	int64_t step_ms = glue_number(&call, 1, 60000);
	int64_t left_ms = glue_number(&call, 2, 60000);
	double before;
	int empty;

	if (call.bad)
		return glue_result(&call, 0);
	pthread_mutex_lock(&writer->lock);
	do {
		struct timespec until = in_ms(step_ms < left_ms ? step_ms : left_ms);

		before = writer->written;
		left_ms -= step_ms;
		while (writer->first != NULL && writer->error == 0 &&
		       pthread_cond_timedwait(&writer->moved, &writer->lock, &until) != ETIMEDOUT)
			;
	} while (writer->first != NULL && writer->error == 0 && writer->written > before && left_ms > 0);
	empty = writer->first == NULL;
	pthread_mutex_unlock(&writer->lock);
	return glue_result(&call, empty);
}

/* closeWriter(writer): what still waits is dropped. */
NATIVE(closeWriter)
{
	BEGIN;
	struct writer *writer = glue_handle(&call, 0, KIND_WRITER);

	if (!call.bad) {
		pthread_mutex_lock(&writer->lock);
		end(writer);
		pthread_mutex_unlock(&writer->lock);
	}
	return glue_result(&call, 0);
}

napi_status glue_export_writer(napi_env env, napi_value exports)
{
	static const napi_property_descriptor functions[] = {
		EXPORT(openWriter), EXPORT(writeLine), EXPORT(writerState), EXPORT(flushWriter), EXPORT(closeWriter),
	};

	return napi_define_properties(env, exports, sizeof(functions) / sizeof(functions[0]), functions);
}
