/*
 * Arguments and results: takes the arguments of a call from JavaScript apart, and hands its result back. A wrong argument
 * must not end the process.
 */
#include "glue.h"

#include <errno.h>
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

uint8_t *glue_bytes(struct call *call, size_t index, size_t *length)
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

int glue_text(struct call *call, size_t index, char *text, size_t size)
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
