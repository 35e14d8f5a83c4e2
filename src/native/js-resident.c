/*
 * What a file holds of its pages, as JavaScript sees it.
 */
#include "glue.h"

/* resident(mapping, fd, ranges, count, method, bytes): bytes[n] becomes what the file holds of range n; 0 or a negative errno. */
NATIVE(resident)
{
	size_t doubles, room;

	BEGIN;
	struct bd_mapping *mapping = glue_memory(&call, 0);
	int fd = glue_fd(&call, 1);
	double *ranges = glue_array(&call, 2, napi_float64_array, &doubles);
	size_t count = (size_t)glue_number(&call, 3, MAX_SAFE_INTEGER);
	int64_t method = glue_number(&call, 4, BD_MINCORE);
	double *bytes = glue_array(&call, 5, napi_float64_array, &room);

	call.bad |= call.bad || count > doubles / 2 || count > room || !glue_ranges_inside(mapping, ranges, count);
	return glue_result(&call, call.bad ? 0 : bd_resident(mapping, fd, ranges, count,
							     (enum bd_resident_method)method, bytes));
}

/* readsAsZeros(mapping, fd, offset, length): 1 or 0, or a negative errno. */
NATIVE(readsAsZeros)
{
	BEGIN;
	struct bd_mapping *mapping = glue_memory(&call, 0);
	int fd = glue_fd(&call, 1);
	const double range[2] = { (double)glue_number(&call, 2, MAX_SAFE_INTEGER),
				  (double)glue_number(&call, 3, MAX_SAFE_INTEGER) };

	call.bad |= call.bad || !glue_ranges_inside(mapping, range, 1) || ((size_t)range[1] & 7) != 0;
	return glue_result(&call, call.bad ? 0 : bd_reads_as_zeros(mapping, fd, (size_t)range[0], (size_t)range[1]));
}

napi_status glue_export_resident(napi_env env, napi_value exports)
{
	static const napi_property_descriptor functions[] = { EXPORT(resident), EXPORT(readsAsZeros) };

	return napi_define_properties(env, exports, sizeof(functions) / sizeof(functions[0]), functions);
}
