/*
 * A library whose functions are custom spans of the tests. do_work has two ways out, so that both
 * have to be found. Made into a shared library by test_python_spans.py.
 */
#include <unistd.h>

__attribute__((noinline)) int do_work(int ms)
{
	if (ms <= 0)
		return -1;
	usleep((useconds_t)ms * 1000);
	return ms;
}

__attribute__((noinline)) int do_call(void (*call)(void))
{
	call();
	return do_work(1);
}
