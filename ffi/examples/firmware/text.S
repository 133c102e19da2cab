/* The text in flash, as tokens: a to z are 0 to 25, a space is 26. text.tokens is made from text.txt by
 *     tr -d '\n' <text.txt | tr 'a-z ' '\000-\032' >text.tokens */
    .section .rodata
    .globl text, text_end
text:
    .incbin "text.tokens"
text_end:
#if defined(__linux__) && defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
