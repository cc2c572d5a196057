;; Goes on until its fuel is used up.
(module
  (memory (export "memory") 4)
  (func (export "alloc") (param i32) (result i32) (i32.const 1024))
  (func (export "merge") (param i32 i32) (result i64)
    (loop $again (br $again))
    (i64.const -1)))
