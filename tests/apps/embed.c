/*
 * A program that embeds Python and is not Python: runs the file of its first argument. Made by
 * test_python_refusals.py with whatever libpython the machine has.
 */
#include <Python.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	FILE *file = argc > 1 ? fopen(argv[1], "r") : NULL;
	int status;

	if (!file)
		return 2;
	Py_Initialize();
	status = PyRun_SimpleFile(file, argv[1]);
	fclose(file);
	return status ? 1 : 0;
}
