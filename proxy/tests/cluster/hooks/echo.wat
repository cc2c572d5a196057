;; Answers with its whole call: what shows depends on the values, their stamps, their order and on how many are merged at
;; once, so this is neither commutative nor associative nor idempotent.
(module
  (memory (export "memory") 4)
  (func (export "alloc") (param i32) (result i32) (i32.const 1024))
  (func (export "merge") (param $at i32) (param $bytes i32) (result i64)
    (i64.or
      (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32))
      (i64.extend_i32_u (local.get $bytes)))))
