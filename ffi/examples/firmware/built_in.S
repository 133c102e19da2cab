/* The contents of flash: the text as tokens (a to z are 0 to 25, a space is 26), made from text.txt by
 *     tr -d '\n' <text.txt | tr 'a-z ' '\000-\032' >text.tokens
 * and a checkpoint to begin with, which may be empty. */
    .section .rodata
    .globl text, text_end, checkpoint, checkpoint_end
text:
    .incbin "text.tokens"
text_end:
checkpoint:
    .incbin "checkpoint.safetensors"
checkpoint_end:
#if defined(__linux__) && defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
