/*
 * File descriptors and memfds, as JavaScript sees them.
 */
#include "glue.h"

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

NATIVE(allocated)
{
	BEGIN;
	int fd = glue_fd(&call, 0);

	return glue_result(&call, call.bad ? 0 : bd_allocated(fd));
}

NATIVE(isMemory)
{
	BEGIN;
	int fd = glue_fd(&call, 0);

	return glue_result(&call, call.bad ? 0 : bd_is_memory(fd));
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

NATIVE(memfd)
{
	char name[250];
	int error;

	BEGIN;
	error = glue_text(&call, 0, name, sizeof(name));
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

napi_status glue_export_fd(napi_env env, napi_value exports)
{
	static const napi_property_descriptor functions[] = {
		EXPORT(close), EXPORT(offset), EXPORT(setOffset), EXPORT(allocated), EXPORT(isMemory), EXPORT(punch), EXPORT(duplicate),
		EXPORT(setNonBlocking), EXPORT(memfd), EXPORT(seal),
	};

	return napi_define_properties(env, exports, sizeof(functions) / sizeof(functions[0]), functions);
}
