/* Makes an empty tuple, or an instance of a subclass of tuple without fields of its own (a
 * NamedTuple), to be filled at once by PyTuple_SET_ITEM. */
#ifndef TRIOQ_NEW_TUPLE_H
#define TRIOQ_NEW_TUPLE_H

#include <Python.h>

static inline PyObject *trioq_new_tuple(PyObject *type, Py_ssize_t size) {
    if (type == (PyObject *)&PyTuple_Type) {
        return PyTuple_New(size);
    }
    PyObject *made = ((PyTypeObject *)type)->tp_alloc((PyTypeObject *)type, size);
#if PY_VERSION_HEX >= 0x030E0000
    if (made != NULL) {
        ((PyTupleObject *)made)->ob_hash = -1; /* not computed yet */
    }
#endif
    return made;
}

#endif
