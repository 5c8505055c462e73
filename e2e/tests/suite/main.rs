//! The mesh as a whole, seen from outside: one binary, because every test binary links all four services.

mod changes;
mod chaos;
mod command;
mod control;
mod demo;
mod explain;
mod faults;
mod limits;
mod mesh;
mod metrics;
mod multiplex;
mod openai;
mod parts;
mod pictures;
mod processes;
mod refine;
mod reflection;
mod schedulers;
mod split;
mod stages;
mod tls;
mod trace;
mod triton;
mod updates;
