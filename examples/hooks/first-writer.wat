;; A merge hook by hand: the first writer wins, the opposite of `lww`.
;;
;;   meridian hook test examples/hooks/first-writer.wat
;;
;; A call is: key (u32 length, bytes), field (u32 length or -1 for none, bytes), u32 count of
;; siblings, oldest first, each origin u64, HLC u64, sequence u64, u32 length, bytes. The answer is
;; its address in the high half of an i64 and its length in the low half; -1 declines.
(module
  (memory (export "memory") 1)
  (global $free (mut i32) (i32.const 16))

  ;; Room for `bytes` more. An instance serves one call, so nothing is ever given back.
  (func $alloc (export "alloc") (param $bytes i32) (result i32)
    (local $at i32)
    (local $missing i32)
    (local.set $at (global.get $free))
    (global.set $free (i32.add (local.get $at) (local.get $bytes)))
    (local.set $missing
      (i32.sub
        (i32.shr_u (i32.add (global.get $free) (i32.const 65535)) (i32.const 16))
        (memory.size)))
    (if (i32.gt_s (local.get $missing) (i32.const 0))
      (then (drop (memory.grow (local.get $missing)))))
    (local.get $at))

  ;; The address behind the bytes whose length stands at `at`; a length of -1 has no bytes.
  (func $behind (param $at i32) (result i32)
    (local $length i32)
    (local.set $length (i32.load (local.get $at)))
    (if (i32.eq (local.get $length) (i32.const -1))
      (then (local.set $length (i32.const 0))))
    (i32.add (local.get $at) (i32.add (i32.const 4) (local.get $length))))

  (func (export "merge") (param $at i32) (param $bytes i32) (result i64)
    (local $value i32)
    ;; Past key, field, count and the first sibling's origin, HLC and sequence.
    (local.set $value
      (i32.add (call $behind (call $behind (local.get $at))) (i32.const 28)))
    (i64.or
      (i64.shl (i64.extend_i32_u (i32.add (local.get $value) (i32.const 4))) (i64.const 32))
      (i64.extend_i32_u (i32.load (local.get $value))))))
