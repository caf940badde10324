# SPDX-License-Identifier: BSD-3-Clause
"""Tensors of a type that is not torch's, on any kind of device, as `_C` sees them: by DLPack's C exchange API."""

from __future__ import annotations

import ctypes
from typing import Any

import torch


class Device(ctypes.Structure):
    _fields_ = (("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32))


class DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", Device),
        ("ndim", ctypes.c_int32),
        ("dtype", DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


FROM_OBJECT = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(DLTensor))
CURRENT_STREAM = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int32, ctypes.c_int32, ctypes.POINTER(ctypes.c_void_p))


class ExchangeAPI(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("prev_api", ctypes.c_void_p),
        ("managed_tensor_allocator", ctypes.c_void_p),
        ("managed_tensor_from_py_object_no_sync", ctypes.c_void_p),
        ("managed_tensor_to_py_object_no_sync", ctypes.c_void_p),
        ("dltensor_from_py_object_no_sync", FROM_OBJECT),
        ("current_work_stream", CURRENT_STREAM),
    )


def _describe(foreign: Any, target: Any) -> int:
    target[0] = foreign.view
    return 0


_DESCRIBE = FROM_OBJECT(_describe)
_STREAM = CURRENT_STREAM(lambda device_type, device_id, stream: 0)
_API = ExchangeAPI(1, 3, None, None, None, None, _DESCRIBE, _STREAM)
_NAME = b"dlpack_exchange_api"
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


class ForeignTensor:
    """A tensor that says that it is on some device, and lies in the host's memory."""

    __dlpack_c_exchange_api__ = _new_capsule(ctypes.addressof(_API), _NAME, None)

    def __init__(self, tensor: torch.Tensor, device_type: int) -> None:
        assert tensor.dtype == torch.float32
        self.tensor = tensor
        count = tensor.dim()
        self._shape = (ctypes.c_int64 * count)(*tensor.shape)
        self._strides = (ctypes.c_int64 * count)(*tensor.stride())
        self.view = DLTensor(
            tensor.data_ptr(), Device(device_type, 0), count, DataType(2, 32, 1), self._shape, self._strides, 0
        )


def tensor_on(device_type: int, tensor: torch.Tensor) -> ForeignTensor:
    """A float32 tensor that says that it is on a device with this number of DLPack's."""
    return ForeignTensor(tensor, device_type)
