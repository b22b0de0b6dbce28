"""Reads the constants of a frozen TensorFlow GraphDef without TensorFlow: a small reader of the protobuf wire format."""
import numpy as np

NODE, NODE_NAME, NODE_OP, NODE_ATTRIBUTE = 1, 1, 2, 5
ATTRIBUTE_KEY, ATTRIBUTE_VALUE, VALUE_TENSOR = 1, 2, 8
TENSOR_TYPE, TENSOR_SHAPE, TENSOR_CONTENT, SHAPE_DIM, DIM_SIZE, DT_FLOAT = 1, 2, 4, 2, 1, 1


def varint(data, at):
    result = shift = 0
    while True:
        byte = data[at]
        at += 1
        result |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return result, at


def fields(data):
    """Yields (field number, value): an int for varints, bytes for everything else."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = varint(data, at)
        else:
            size, at = {1: (8, at), 5: (4, at)}[wire] if wire in (1, 5) else varint(data, at)
            value, at = data[at : at + size], at + size
        yield key >> 3, value


def shape_of(tensor):
    dims = (value for field, value in fields(tensor.get(TENSOR_SHAPE, b"")) if field == SHAPE_DIM)
    return [dict(fields(dim)).get(DIM_SIZE, 0) for dim in dims]


def float_constants(graph):
    """Every FLOAT constant of the graph that is stored as raw bytes, by node name."""
    found = {}
    for field, node in fields(graph):
        if field != NODE:
            continue
        name, op, attributes = None, None, {}
        for field, value in fields(node):
            if field == NODE_NAME:
                name = value.decode()
            elif field == NODE_OP:
                op = value.decode()
            elif field == NODE_ATTRIBUTE:
                entry = dict(fields(value))
                attributes[entry[ATTRIBUTE_KEY].decode()] = entry.get(ATTRIBUTE_VALUE, b"")
        if op != "Const":
            continue
        tensor = dict(fields(dict(fields(attributes["value"]))[VALUE_TENSOR]))
        if tensor.get(TENSOR_TYPE) == DT_FLOAT and TENSOR_CONTENT in tensor:
            found[name] = np.frombuffer(tensor[TENSOR_CONTENT], "<f4").reshape(shape_of(tensor))
    return found
