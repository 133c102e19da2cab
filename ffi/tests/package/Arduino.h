/* As much of Arduino as the sketch wants, on the emulated board: it ends once the loss has been printed twice. */
#include <stddef.h>
#include <stdint.h>

extern "C" void board_print(const char *text);
extern "C" [[noreturn]] void board_exit(int status);

struct Printer {
    void begin(unsigned long) {}
    void print(const char *text) { board_print(text); }
    void print(char letter) {
        const char text[] = {letter, 0};
        board_print(text);
    }
    void print(unsigned long number) {
        if (number >= 10) print(number / 10);
        print(char('0' + number % 10));
    }
    void println(const char *text = "") { print(text), print('\n'); }
    void println(float number, int) {
        static int printed;
        print((unsigned long)(number * 1000)), println(" thousandths");
        if (++printed == 2) board_exit(0);
    }
};

static Printer Serial;

static inline void delay(unsigned long) { board_exit(1); }

void setup();
void loop();

extern "C" int main(void) {
    setup();
    for (;;) loop();
}
