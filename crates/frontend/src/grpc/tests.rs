//! Tests of reading and writing messages, without sockets.
