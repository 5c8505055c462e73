//! The mesh as a whole, in one process and as processes, under test.
