/*
 * What the files of glue share (glue.c): taking arguments apart and handing results back. The first bad argument marks the
 * call; glue_result() then throws instead of returning.
 */
#ifndef BALLOOND_GLUE_H
#define BALLOOND_GLUE_H

#define NAPI_VERSION 8
#include "native.h"

#include <node_api.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_ARGUMENTS 7
#define MAX_SAFE_INTEGER 9007199254740991

struct call {
	napi_env env;
	size_t count;
	napi_value values[MAX_ARGUMENTS];
	int bad;
};

/* How everything behind an external of this addon begins. */
struct handle {
	uint32_t kind;
};

/* What Mapping holds. While a discard runs behind, `users` keeps it mapped. */
struct mapping {
	struct handle handle;
	struct bd_mapping memory;
	int users;
};

void glue_begin(struct call *call, napi_env env, napi_callback_info info);
/* A whole number in 0 .. most. */
int64_t glue_number(struct call *call, size_t index, int64_t most);
int glue_fd(struct call *call, size_t index);
void *glue_handle(struct call *call, size_t index, uint32_t kind);
/* Memory of a typed array of the given type; `length` in elements. */
void *glue_array(struct call *call, size_t index, napi_typedarray_type wanted, size_t *length);
/* Part of a Uint8Array: the array, an offset and a length in consecutive arguments. */
uint8_t *glue_bytes(struct call *call, size_t index, size_t *length);
/* Copies a string to `text`, which has `size` bytes; 0, or a negative errno where it does not fit or has a NUL in it. */
int glue_text(struct call *call, size_t index, char *text, size_t size);
/* NULL, and a bad call, unless it is one that is still mapped. */
struct mapping *glue_mapping(struct call *call, size_t index);
struct bd_mapping *glue_memory(struct call *call, size_t index);
/* `count` pairs of offset and length that lie inside the mapping. */
int glue_ranges_inside(const struct bd_mapping *mapping, const double *ranges, size_t count);
napi_value glue_result(struct call *call, int64_t value);

/*
 * Calls back from the event loop. An exception has no caller to go to: it becomes an uncaughtException, as in any
 * event handler.
 */
void glue_call_back(napi_env env, napi_async_context context, napi_ref callback, size_t count,
		    const double *numbers);

/* js-*.c, watch.c, behind.c and writer.c: add their functions. */
napi_status glue_export_socket(napi_env env, napi_value exports);
napi_status glue_export_fd(napi_env env, napi_value exports);
napi_status glue_export_mapping(napi_env env, napi_value exports);
napi_status glue_export_discard(napi_env env, napi_value exports);
napi_status glue_export_event(napi_env env, napi_value exports);
napi_status glue_export_watch(napi_env env, napi_value exports);
napi_status glue_export_behind(napi_env env, napi_value exports);
napi_status glue_export_writer(napi_env env, napi_value exports);
napi_status glue_export_resident(napi_env env, napi_value exports);

#define NATIVE(name) static napi_value js_##name(napi_env env, napi_callback_info info)
#define BEGIN           \
	struct call call; \
	glue_begin(&call, env, info)
#define EXPORT(name) { #name, NULL, js_##name, NULL, NULL, NULL, napi_enumerable, NULL }

#endif
