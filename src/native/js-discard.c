/*
 * Discards that the caller waits for, as JavaScript sees them. The others are in behind.c.
 */
#include "glue.h"

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

/* discard(mapping, fd, ranges, count, method, error): how many were done; error[0] says what stopped it. */
NATIVE(discard)
{
	size_t doubles, room, done = 0;
	int error = 0;

	BEGIN;
	struct bd_mapping *mapping = glue_memory(&call, 0);
	int fd = glue_fd(&call, 1);
	double *ranges = glue_array(&call, 2, napi_float64_array, &doubles);
	size_t count = (size_t)glue_number(&call, 3, MAX_SAFE_INTEGER);
	int64_t method = glue_number(&call, 4, BD_RESERVE);
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
	struct bd_mapping *mapping = glue_memory(&call, 0);
	int pidfd = glue_fd(&call, 1);
	double *ranges = glue_array(&call, 2, napi_float64_array, &doubles);
	size_t count = (size_t)glue_number(&call, 3, MAX_SAFE_INTEGER);

	call.bad |= call.bad || count > doubles / 2 || !glue_ranges_inside(mapping, ranges, count);
	return glue_result(&call, call.bad ? 0 : (int64_t)bd_discard_vector(mapping, pidfd, ranges, count));
}

napi_status glue_export_discard(napi_env env, napi_value exports)
{
	static const napi_property_descriptor functions[] = {
		EXPORT(pidfdSelf), EXPORT(pageBytes), EXPORT(discard), EXPORT(discardVector),
	};

	return napi_define_properties(env, exports, sizeof(functions) / sizeof(functions[0]), functions);
}
