// SPDX-License-Identifier: Apache-2.0
/* libbpf's archive was compiled against glibc 2.38 or newer, which names these functions differently. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

int __isoc23_sscanf(const char *text, const char *format, ...)
{
	va_list args;
	int read;

	va_start(args, format);
	read = vsscanf(text, format, args);
	va_end(args);
	return read;
}

int __isoc23_fscanf(FILE *file, const char *format, ...)
{
	va_list args;
	int read;

	va_start(args, format);
	read = vfscanf(file, format, args);
	va_end(args);
	return read;
}

unsigned long long __isoc23_strtoull(const char *text, char **end, int base)
{
	return strtoull(text, end, base);
}
