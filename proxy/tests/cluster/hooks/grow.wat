;; Takes all the memory it may have, writes to each page of it, and then asks for more.
(module
  (memory (export "memory") 4)
  (func (export "alloc") (param i32) (result i32) (i32.const 1024))
  (func (export "merge") (param i32 i32) (result i64)
    (local $at i32)
    (loop $again
      (local.set $at (i32.shl (memory.grow (i32.const 1)) (i32.const 16)))
      (i32.store8 (local.get $at) (i32.const 1))
      (br $again))
    (i64.const -1)))
