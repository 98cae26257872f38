//! Message bus between cloud services: call, cast and fanout, with typed RPC on top.
